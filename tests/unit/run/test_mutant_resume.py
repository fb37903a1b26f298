# SPDX-License-Identifier: GPL-2.0-or-later
"""Trials of earlier runs are read back from the folders that a run leaves."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest

from harness.contract.plan import to_json
from harness.errors import UsageError
from harness.results import Key, RunResult
from harness.run.mutant_resume import earlier_trials
from harness.run.mutant_trials import Mutant
from harness.run.run_folder import RunFolder
from harness.scenario.build import build_plan
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.scenarios import all_scenarios

POINT = Mutant("f: x negated", 1000, "f.c:1", "f", (), ("D05",))
MADE = "linux-source-6.1 with the points 0123"
SCENARIOS = all_scenarios()


def leave(root: Path, minute: int, made: str, **verdicts: Status) -> RunFolder:
    folder = RunFolder.create(root, datetime.datetime(2026, 1, 1, 0, minute))
    rows = tuple(
        row_of(Key(name.replace("_", "@"), "k"), status, "D05: owed" if status is Status.FAIL else "", seconds=1.5)
        for name, status in verdicts.items()
    )
    for row in rows:
        folder.finish(row)
        scenario = replace(SCENARIOS[row.key.scenario.partition("@")[0]], kernel_params={"kvm.apf_mutant": "1000"})
        plan = to_json(build_plan(scenario, nonce=minute))
        (folder.path / row.key.folder / "plan.json").write_text(plan)
    folder.write(RunResult("r", "", tuple(row.key for row in rows), rows, facts={"k made from": made}))
    return folder


def test_the_newest_of_each_counts_and_an_error_is_no_trial(tmp_path: Path) -> None:
    leave(tmp_path, 1, MADE, S23=Status.PASS, S23_1000=Status.PASS, S29_1000=Status.ERROR)
    newer = leave(tmp_path, 2, MADE, S23_1000=Status.FAIL, S24_1000=Status.PASS, S23_1001=Status.PASS)
    found = {(t.mutant, t.scenario): t for t in earlier_trials(tmp_path, "k", MADE, (POINT,), SCENARIOS.values())}
    assert set(found) == {(None, "S23"), (POINT, "S23"), (POINT, "S24")}
    trial = found[POINT, "S23"]
    assert trial.named and trial.folder == newer.path and trial.row is not None and trial.row.seconds == 1.5


def test_another_kernel_tells_nothing(tmp_path: Path) -> None:
    leave(tmp_path, 1, "linux-source-6.1 with the points 4567", S23=Status.PASS)
    assert earlier_trials(tmp_path, "k", MADE, (POINT,), SCENARIOS.values()) == []
    assert earlier_trials(tmp_path / "nothing", "k", MADE, (POINT,), ()) == []


def test_results_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/results.json").write_text("{}")
    with pytest.raises(UsageError, match=r"r/results\.json"):
        earlier_trials(tmp_path, "k", MADE, (POINT,), ())


def test_a_scenario_that_has_changed_since_is_another_one(tmp_path: Path) -> None:
    leave(tmp_path, 1, MADE, S23=Status.PASS, S23_1000=Status.PASS, S29_1000=Status.PASS)
    changed = {**SCENARIOS, "S23": replace(SCENARIOS["S23"], steps=SCENARIOS["S23"].steps[:1] * 2)}
    assert [t.scenario for t in earlier_trials(tmp_path, "k", MADE, (POINT,), changed.values())] == ["S29"]
    later = {**SCENARIOS, "S29": replace(SCENARIOS["S29"], deadline_s=7, title="other words")}
    assert len(earlier_trials(tmp_path, "k", MADE, (POINT,), later.values())) == 3
