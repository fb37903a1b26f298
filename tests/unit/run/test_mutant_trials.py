# SPDX-License-Identifier: GPL-2.0-or-later
"""Which trials are made for which mutant; what counts as caught.  What performs them is a stand-in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import CatalogError
from harness.judge.verdict_types import Finding
from harness.results import Key, RunResult
from harness.run import mutant_trials
from harness.run.mutant_trials import KERNEL, PARAMETER, Catch, Mutant, MutantTrials, Trial, catch_of
from harness.run.request import Request
from harness.run.scenario_sources import read_scenarios
from harness.run.selection import Job
from harness.scenario.dump import dump
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.run.test_bad_luck import Listener
from tests.unit.scenarios import all_scenarios

ONE = Mutant("ONE", 1, "about", "R1", ("S23", "S29", "S60"), ("D05",))
TWO = Mutant("TWO", 2, "about", "R2", ("S29",), ("D07",))
KEY = Key("S29@ONE", KERNEL)


@pytest.mark.parametrize("at_go", [False, True])
def test_a_trial_can_be_sent_to_another_machine(at_go: bool, tmp_path: Path) -> None:
    """As a file of scenarios, which must be as good as any."""
    for name, scenario in all_scenarios().items():
        sent = replace(scenario, id=ONE.id_under(name, at_go))
        (tmp_path / "0000.toml").write_text(dump(sent))
        assert read_scenarios((tmp_path / "0000.toml",)) == (sent,)


class Runs:
    """Answers jobs with the verdicts it was given; everything else passes."""

    def __init__(self, folder: Path, **verdicts: Status) -> None:
        self.folder = folder
        self.verdicts = verdicts
        self.runs: list[list[str]] = []
        self.jobs: dict[str, Job] = {}

    def __call__(self, jobs: Sequence[Job], request: Request, observer: object) -> tuple[RunResult, Path]:
        self.runs.append([job.key.scenario for job in jobs])
        self.jobs |= {job.key.scenario: job for job in jobs}
        rows = []
        for job in jobs:
            status = self.verdicts.get(job.key.scenario.replace("@", "_"), Status.PASS)
            reason = "D05: item 1" if status is Status.FAIL else ""
            rows.append(row_of(job.key, status, reason, seconds=2.5))
            self.leave(job)
        assert {job.key.kernel for job in jobs} == {KERNEL}
        return RunResult("r", "", tuple(job.key for job in jobs), tuple(rows)), self.folder

    def leave(self, job: Job) -> None:
        """The steps of the agent: the program took 2.5 s."""
        path = self.folder / job.key.folder / "capture/progress.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        steps = (("go", 100.0), ("guest-ended", 102.5))
        path.write_text("".join(f'{{"t": {at}, "mono": {at}, "step": "{step}"}}\n' for step, at in steps))


def run(monkeypatch: pytest.MonkeyPatch, runs: Runs, *, every: bool = False, catches: int = 1) -> list[Trial]:
    monkeypatch.setattr(mutant_trials, "perform_jobs", runs)
    trials = MutantTrials(Request(), Listener(""))
    assert trials.try_unmutated(("S23", "S29", "S60"))
    assert trials.try_mutants((ONE, TWO), every=every, catches=catches)
    return trials.trials


def test_the_unmutated_kernel_first_then_each_mutant_until_it_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(tmp_path, S29_ONE=Status.FAIL)
    trials = run(monkeypatch, runs)
    assert [sorted(r) for r in runs.runs] == [
        ["S23", "S29", "S60"],
        ["S23@ONE", "S29@TWO"],
        ["S29@ONE"],
    ]
    params = {name: job.scenario.kernel_params for name, job in runs.jobs.items()}
    assert PARAMETER not in params["S23"]
    assert (params["S23@ONE"][PARAMETER], params["S29@TWO"][PARAMETER]) == ("1", "2")
    assert [(t.scenario, t.rule) for t in trials if t.caught] == [("S29", "D05")]


def test_the_whole_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path, S23_ONE=Status.FAIL)
    run(monkeypatch, runs, every=True)
    assert sorted(runs.runs[1]) == ["S23@ONE", "S29@ONE", "S29@TWO", "S60@ONE"]
    assert len(runs.runs) == 2


def test_no_fault_is_to_hang_by_one_scenario_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path, S23_ONE=Status.FAIL, S29_ONE=Status.FAIL)
    run(monkeypatch, runs, catches=2)
    assert [sorted(r) for r in runs.runs[1:]] == [["S23@ONE", "S29@TWO"], ["S29@ONE"]]


def test_a_guest_that_hangs_under_a_mutant_costs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path)
    run(monkeypatch, runs)
    own = runs.jobs["S29"].scenario.deadline_s
    assert runs.jobs["S29@TWO"].scenario.deadline_s == 4 * 2.5 + 4 < own


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.FAIL])
def test_only_a_fail_is_a_catch(status: Status) -> None:
    trial = Trial(ONE, "S23", row_of(Key("S23@ONE", KERNEL), status, "D05: no"))
    assert not trial.caught and trial.rule == ""
    assert not Trial(ONE, "S23", None).caught


def test_a_fail_that_does_not_name_the_fault_is_another_word() -> None:
    runs = [Trial(replace(ONE, rules=("D36",)), "S29", row_of(KEY, Status.FAIL, "D09: too many"))]
    assert catch_of(ONE, runs) is Catch.OTHERWISE
    assert catch_of(ONE, [replace(runs[0], mutant=replace(ONE, rules=("D09",)))]) is Catch.NAMED


@pytest.mark.parametrize(
    ("rules", "named"), [(("item:gp",), True), (("item",), True), (("item:outcome",), False), (("total",), False)]
)
def test_a_rule_may_be_named_with_what_it_is_about(rules: tuple[str, ...], named: bool) -> None:
    row = row_of(KEY, Status.FAIL, "no #GP", findings=(Finding("item", "no #GP", about="gp"),))
    assert Trial(replace(ONE, rules=rules), "S29", row).named is named


@pytest.mark.parametrize(
    ("hangs", "ends", "catch"),
    [
        (True, True, Catch.NAMED),
        (True, False, Catch.OTHERWISE),
        (False, True, Catch.OTHERWISE),
        (False, False, Catch.NAMED),
        (None, True, Catch.NAMED),
        (frozenset({"S29"}), True, Catch.NAMED),
        (frozenset({"S29"}), False, Catch.OTHERWISE),
        (frozenset({"S83"}), True, Catch.OTHERWISE),
        (frozenset({"S83"}), False, Catch.NAMED),
    ],
)
def test_whether_the_guest_hung_is_compared(hangs: bool | frozenset[str] | None, ends: bool, catch: Catch) -> None:
    mutant = replace(ONE, hangs=hangs)
    findings = (Finding("D05", "owed"), *((Finding("ending", "its deadline"),) if ends else ()))
    trial = Trial(mutant, "S29", row_of(KEY, Status.FAIL, "D05: owed", findings=findings))
    assert catch_of(mutant, [trial]) is catch


@pytest.mark.parametrize(
    ("end", "hung"), [("done", False), ("guest-timeout", True), ("qemu-died", True), ("error", False)]
)
def test_whether_it_hung_is_read_where_it_ended(tmp_path: Path, end: str, hung: bool) -> None:
    """A host that is used up for another reason, such as a line in its log, is no guest that hung."""
    row = row_of(KEY, Status.FAIL, "D28: the host says", findings=(Finding("D28", "WARNING"),))
    row = replace(row, verdict=replace(row.verdict, taints=True))
    capture = tmp_path / row.folder / "capture"
    capture.mkdir(parents=True)
    (capture / "end.json").write_text(f'{{"format": 8, "nonce": 1, "status": "{end}", "reason": "", "undone": true}}')
    assert Trial(ONE, "S29", row, tmp_path).hung is hung


def test_a_scenario_that_does_not_exist_is_no_reason_to_test_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutant_trials, "perform_jobs", Runs(tmp_path))
    with pytest.raises(CatalogError, match="S-GONE"):
        MutantTrials(Request(), Listener("")).try_mutants((replace(TWO, scenarios=("S29", "S-GONE")),))


def test_a_guest_that_never_comes_up_is_given_up_and_is_no_survivor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unclear = Status.INCONCLUSIVE
    runs = Runs(tmp_path, S23_ONE=unclear, S29_ONE=unclear, S60_ONE=Status.FAIL)
    trials = run(monkeypatch, runs)
    assert [sorted(r) for r in runs.runs[1:]] == [["S23@ONE", "S29@TWO"], ["S29@ONE"]]
    assert catch_of(ONE, trials) is Catch.UNDECIDED and catch_of(TWO, trials) is Catch.SURVIVED


class NoGuest(Runs):
    """Under ONE no guest comes up, or not even the host prepares for one."""

    last_step = '{"t": 1, "mono": 1, "step": "start-guest"}\n'

    def leave(self, job: Job) -> None:
        super().leave(job)
        path = self.folder / job.key.folder / "capture/progress.jsonl"
        if PARAMETER in job.scenario.kernel_params and "@ONE" in job.key.scenario:
            path.write_text(self.last_step)


@pytest.mark.parametrize(
    ("status", "last_step"),
    [
        (Status.INCONCLUSIVE, NoGuest.last_step),
        (Status.ERROR, NoGuest.last_step.replace("start-guest", "prepare-host")),
        (Status.ERROR, ""),
    ],
)
def test_a_mutant_under_which_no_guest_comes_up_is_selected_when_the_guest_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Status, last_step: str
) -> None:
    statuses = {"S23_ONE": status, "S29_ONE+go": Status.FAIL}
    runs = NoGuest(tmp_path, **statuses)
    runs.last_step = last_step
    trials = run(monkeypatch, runs)
    assert [sorted(r) for r in runs.runs[1:]] == [["S23@ONE", "S29@TWO"], ["S23@ONE+go"], ["S29@ONE+go"]]
    late = runs.jobs["S29@ONE+go"].scenario
    assert late.kernel_params_at_go == {PARAMETER: "1"} and PARAMETER not in late.kernel_params
    assert [(t.scenario, t.at_go) for t in trials if t.caught] == [("S29", True)]
    assert catch_of(ONE, trials) is Catch.NAMED
