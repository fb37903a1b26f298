# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel against an earlier run, with real captures: they are judged now, as if they had just been performed."""

from __future__ import annotations

import datetime
import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.contract.plan import Plan, from_json, to_json
from harness.errors import UsageError
from harness.judge.verdict_types import Stage
from harness.results import Key, Row, RunResult
from harness.run import baseline as module
from harness.run.baseline import compare_with_baseline, read_baseline
from harness.run.judge_folder import judge_folder
from harness.run.request import Observer, Request
from harness.run.run_folder import RunFolder
from harness.run.selection import Job
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.run.test_bad_luck import Listener

DATA = Path(__file__).parents[2] / "data"
NOWAIT, NOIO = DATA / "captures", DATA / "captures-noio"


def write_run(results: Path, kernel: str, rows: Sequence[Row], captures: Path, day: int = 1) -> Path:
    """A run as runs leave it."""
    folder = RunFolder.create(results, datetime.datetime(2026, 11, day))
    for row in rows:
        (folder.path / row.folder).mkdir()
        shutil.copy(captures / row.key.scenario / "plan.json", folder.path / row.folder)
        folder.finish(row)
    folder.write(RunResult(folder.path.name, "apf run", tuple(row.key for row in rows), tuple(rows)))
    return folder.path


@functools.cache
def judged(kernel: str, captures: Path, variant: str) -> tuple[Row, ...]:
    return tuple(Row(Key(s, kernel), judge_folder(captures / s, variant)) for s in ("S23", "S29"))


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return Request(kernels=("noio-6.1",), results=tmp_path / "results")


@pytest.fixture
def perform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Performing is having the captures of noio that are there."""
    asked: list[str] = []

    def perform_jobs(jobs: Sequence[Job], request: Request, _observer: Observer) -> tuple[RunResult, Path]:
        asked.extend(job.scenario.id for job in jobs)
        rows = [row for row in judged("noio-6.1", NOIO, "noio") if row.key.scenario in asked]
        folder = write_run(tmp_path / "now", "noio-6.1", rows, NOIO, day=2)
        return RunResult("now", "apf validate", tuple(job.key for job in jobs), tuple(rows)), folder

    monkeypatch.setattr(module, "perform_jobs", perform_jobs)
    return asked


def same_plans(run: Path) -> None:
    """Both captures are of one plan in all but the nonce: the older ones were made of an older file."""
    for plan in run.glob("*/plan.json"):
        plan.write_text((NOIO / plan.parent.name.partition("+")[0] / "plan.json").read_text())


def test_what_differs_is_what_the_models_say(tmp_path: Path, request_: Request, perform: list[str]) -> None:
    run = write_run(tmp_path / "then", "debian-6.1", judged("debian-6.1", NOWAIT, "nowait"), NOWAIT)
    same_plans(run)
    found = compare_with_baseline(request_, read_baseline(run), Listener(""))
    assert sorted(perform) == ["S23", "S29"], "what the baseline has, and nothing else"
    assert found.left_out == ()
    assert [(c.scenario, c.a.variant, c.b.variant) for c in found.comparisons] == [
        ("S23", "nowait", "noio"), ("S29", "nowait", "noio"),
    ]  # fmt: skip
    assert found.exit_code == 0
    assert any(c.differences for c in found.comparisons)


def test_another_plan_is_not_compared(tmp_path: Path, request_: Request, perform: list[str]) -> None:
    run = write_run(tmp_path / "then", "debian-6.1", judged("debian-6.1", NOWAIT, "nowait"), NOWAIT)
    same_plans(run)
    path = run / "S29+debian-6.1/plan.json"
    raw = json.loads(path.read_text())
    path.write_text(to_json(from_json(Plan, json.dumps({**raw, "deadline_s": raw["deadline_s"] + 1}))))
    found = compare_with_baseline(request_, read_baseline(run), Listener(""))
    assert found.left_out == ("S29: not compared: its plan is another than in the baseline",)
    assert [c.scenario for c in found.comparisons] == ["S23"]
    assert found.exit_code == 1


def test_what_was_not_judged_is_no_baseline(tmp_path: Path, request_: Request) -> None:
    rows = [row_of(Key("S23", "k"), Status.ERROR, "no host", stage=Stage.PERFORM)]
    baseline = read_baseline(write_run(tmp_path, "k", rows, NOWAIT))
    assert baseline.rows == {}
    with pytest.raises(UsageError, match="judged none of these"):
        compare_with_baseline(request_, baseline, Listener(""))


def test_which_kernel_of_a_run_is_meant(tmp_path: Path) -> None:
    rows = [*judged("a", NOWAIT, "nowait"), *judged("b", NOIO, "noio")]
    run = write_run(tmp_path, "a", rows, NOWAIT)
    assert read_baseline(run, "b").rows["S23"].variant == "noio"
    with pytest.raises(UsageError, match="several kernels") as caught:
        read_baseline(run)
    assert "a, b" in caught.value.hint
    with pytest.raises(UsageError, match="no kernel c"):
        read_baseline(run, "c")
    with pytest.raises(UsageError, match="not the folder of a run"):
        read_baseline(tmp_path / "absent")
