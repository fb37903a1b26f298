# SPDX-License-Identifier: GPL-2.0-or-later
"""Which trials are made for which mutant; what counts as caught.  What performs them is a stand-in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import CatalogError, UsageError
from harness.results import Key, RunResult
from harness.run import mutant_trials
from harness.run.mutant_trials import KERNEL, PARAMETER, Mutant, Trial, choose, load_mutants, run_mutants
from harness.run.request import Request
from harness.run.selection import Job
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.run.test_bad_luck import Listener

ONE = Mutant("ONE", 1, "about", "R1", ("S23", "S29", "S60"), ("D05",))
TWO = Mutant("TWO", 2, "about", "R2", ("S29",), ("D07",))


class Runs:
    """Answers jobs with the verdicts it was given; everything else passes."""

    def __init__(self, **verdicts: Status) -> None:
        self.verdicts = verdicts
        self.runs: list[list[str]] = []
        self.params: dict[str, dict[str, str]] = {}

    def __call__(self, jobs: Sequence[Job], request: Request, observer: object) -> tuple[RunResult, Path]:
        self.runs.append([job.key.scenario for job in jobs])
        self.params |= {job.key.scenario: dict(job.scenario.kernel_params) for job in jobs}
        rows = []
        for job in jobs:
            status = self.verdicts.get(job.key.scenario.replace("@", "_"), Status.PASS)
            rows.append(row_of(job.key, status, "D05: item 1" if status is Status.FAIL else ""))
        assert {job.key.kernel for job in jobs} == {KERNEL}
        return RunResult("r", "", tuple(job.key for job in jobs), tuple(rows)), Path(f"run{len(self.runs)}")


def run(monkeypatch: pytest.MonkeyPatch, runs: Runs, *, every: bool = False) -> list[Trial]:
    monkeypatch.setattr(mutant_trials, "perform_jobs", runs)
    trials, _, _ = run_mutants(Request(), Listener(""), (ONE, TWO), every=every)
    return trials


def test_the_unmutated_kernel_first_then_each_mutant_until_it_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(S29_ONE=Status.FAIL)
    trials = run(monkeypatch, runs)
    assert [sorted(r) for r in runs.runs] == [
        ["S23", "S29", "S60"],
        ["S23@ONE", "S29@TWO"],
        ["S29@ONE"],
    ]
    assert PARAMETER not in runs.params["S23"]
    assert (runs.params["S23@ONE"][PARAMETER], runs.params["S29@TWO"][PARAMETER]) == ("1", "2")
    assert [(t.scenario, t.rule) for t in trials if t.caught] == [("S29", "D05")]


def test_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(S23_ONE=Status.FAIL)
    run(monkeypatch, runs, every=True)
    assert sorted(runs.runs[1]) == ["S23@ONE", "S29@ONE", "S29@TWO", "S60@ONE"]
    assert len(runs.runs) == 2


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.FAIL])
def test_only_a_fail_is_a_catch(status: Status) -> None:
    trial = Trial(ONE, "S23", row_of(Key("S23@ONE", KERNEL), status, "D05: no"))
    assert not trial.caught and trial.rule == ""
    assert not Trial(ONE, "S23", None).caught


def test_the_catalogue_can_be_read_and_numbers_are_used_once() -> None:
    all_of_them = load_mutants()
    assert len(all_of_them) >= 14
    assert len({m.number for m in all_of_them}) == len(all_of_them)
    assert choose(all_of_them, [str(all_of_them[0].number)]) == all_of_them[:1]
    with pytest.raises(UsageError, match="NO_SUCH"):
        choose(all_of_them, ["NO_SUCH"])


def test_a_catalogue_that_lacks_something(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('[A]\nnumber = 1\nabout = "x"\n')
    with pytest.raises(CatalogError, match="imitates"):
        load_mutants(tmp_path / "m.toml")


def test_a_scenario_that_does_not_exist_is_no_reason_to_test_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutant_trials, "perform_jobs", Runs())
    with pytest.raises(CatalogError, match="S-GONE"):
        run_mutants(Request(), Listener(""), (replace(TWO, scenarios=("S29", "S-GONE")),), every=False)
