# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a real capture, as times."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.evidence.agent_steps import read_progress
from harness.judge.verdict_types import Verdict
from harness.report.profile_text import REST
from harness.results import Key, Row
from harness.run.step_times import step_times
from harness.status import Status
from tests.unit.judge.golden import load


def row(scenario: str, seconds: float) -> Row:
    return Row(Key(scenario, "debian-6.1"), Verdict(scenario=scenario, status=Status.PASS), seconds=seconds)


def test_the_steps_and_the_rest_make_up_the_whole(tmp_path: Path) -> None:
    data = load("S29")["progress.jsonl"]
    steps = read_progress(data)
    capture = tmp_path / "S29+debian-6.1" / "capture"
    capture.mkdir(parents=True)
    (capture / "progress.jsonl").write_bytes(data)
    (found,) = step_times(tmp_path, [row("S29", steps[-1].t + 1.5), row("S30", 2.0)])
    assert found.name == "S29 on debian-6.1"
    assert found.steps[REST] == pytest.approx(1.5)
    assert sum(found.steps.values()) == pytest.approx(found.seconds - steps[0].t)
    assert {step.step for step in steps[:-1]} | {REST} == set(found.steps)
