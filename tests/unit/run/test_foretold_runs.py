# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs held against what is said of their plans: folders as a run leaves them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.judge.verdict_types import Verdict
from harness.model.outcomes import Outcome
from harness.run.foretold_runs import Foretold, hold_against_predictions
from harness.run.judge_folder import judge_folder
from harness.status import Status
from tests.unit.judge.golden import CAPTURES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One scenario of a run."""
    there = tmp_path / "S29+debian-6.1"
    shutil.copytree(CAPTURES / "S29", there / "capture")
    _write(there, judge_folder(there / "capture", "nowait"))
    return there


def _write(folder: Path, verdict: Verdict) -> None:
    (folder / "verdict.json").write_text(verdict.to_json())


def _held(folder: Path) -> Foretold:
    (one,) = hold_against_predictions([folder], orders=1)
    assert one.folder == folder
    return one


def test_what_was_said_and_what_was_not(folder: Path) -> None:
    assert _held(folder) == Foretold(folder)
    verdict = Verdict.from_json((folder / "verdict.json").read_text())
    rows = tuple(replace(row, seen=(Outcome.HALT,)) if row.seen else row for row in verdict.items)
    _write(folder, replace(verdict, items=rows))
    found = _held(folder)
    assert found.outside and not found.passed_over


def test_what_was_not_as_predicted_is_passed_over(folder: Path) -> None:
    verdict = Verdict.from_json((folder / "verdict.json").read_text())
    _write(folder, replace(verdict, status=Status.INCONCLUSIVE))
    assert _held(folder) == Foretold(folder, passed_over="its verdict is INCONCLUSIVE")


def test_a_capture_that_cannot_be_read_ends_none_of_the_others(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "S29+broken"
    shutil.copytree(folder, broken)
    (broken / "capture/plan.json").write_text("{")
    first, second = hold_against_predictions([broken, folder], orders=1)
    assert "plan.json" in first.passed_over and second == Foretold(folder)


def test_a_verdict_that_cannot_be_read(folder: Path) -> None:
    (folder / "verdict.json").unlink()
    with pytest.raises(UsageError, match=r"verdict\.json"):
        _held(folder)
