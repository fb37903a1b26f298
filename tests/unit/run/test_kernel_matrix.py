# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix goes on where it was, and keeps only what is still the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.contract.plan import to_json
from harness.errors import UsageError
from harness.judge.verdict_types import KnownFaultRow, Verdict
from harness.report.results_json import results_json
from harness.results import AcceptedFinding, Row, RunResult
from harness.run import kernel_matrix
from harness.run.kernel_matrix import kept, run_matrix
from harness.run.request import Observer, Request
from harness.run.scenario_sources import read_scenarios
from harness.run.selection import Job
from harness.run.setup import running_build
from harness.scenario.build import build_plan
from harness.status import Status

SCENARIO = """
id = "{}"
title = "one page"
[pages.f]
groups = {}
[[steps]]
touch = "f"
"""
MADE_FROM = {"debian-6.1": "linux-image-6.1.0-56-cloud-amd64 6.1.192-2", "debian-6.12": "linux-image 6.12.117-1"}


class Ran:
    """Stands where perform_jobs() is: leaves what a run leaves, and remembers what it was asked to do."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.status: dict[tuple[str, str], Status] = {}
        self.made_from = dict(MADE_FROM)
        self.interrupts_after = 99
        self.troubles: tuple[str, ...] = ()

    def __call__(self, jobs: Sequence[Job], request: Request, observer: object) -> tuple[RunResult, Path]:
        self.asked.append(tuple(f"{job.key.scenario} on {job.key.kernel}" for job in jobs))
        folder = request.results / f"run-{len(self.asked):02}"
        rows = []
        for job in jobs:
            where = folder / job.key.folder
            where.mkdir(parents=True)
            (where / "plan.json").write_text(to_json(build_plan(job.scenario, len(self.asked))))
            status = self.status.get((job.key.scenario, job.key.kernel), Status.PASS)
            known = (KnownFaultRow("F1", predicted=True, shown=True),) if status is Status.FINDING else ()
            verdict = Verdict(scenario=job.key.scenario, status=status, known_faults=known)
            (where / "verdict.json").write_text(verdict.to_json())
            rows.append(Row(job.key, verdict))
        name = jobs[0].key.kernel
        what = "made from" if name in MADE_FROM else "kernel"
        facts = {f"{name} release": "6.x", f"{name} {what}": self.made_from[name]}
        planned = tuple(r.key for r in rows)
        result = RunResult(folder.name, "apf", planned, tuple(rows), facts, troubles=self.troubles)
        result = replace(result, interrupted=len(self.asked) >= self.interrupts_after)
        (folder / "results.json").write_text(results_json(result))
        return result, folder


class Silent:
    """Hears of a run and says nothing."""

    def scope(self, prefix: str) -> None: ...
    def progress(self, what: str, done: float | None = None) -> None: ...
    def line(self, text: str = "") -> None: ...
    def verdict(self, row: Row) -> None: ...


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    stand_in = Ran()
    monkeypatch.setattr(kernel_matrix, "perform_jobs", stand_in)
    return stand_in


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    for name in ("X1", "X2"):
        (tmp_path / f"{name}.toml").write_text(SCENARIO.format(name, 1))
    paths = (tmp_path / "X1.toml", tmp_path / "X2.toml")
    return Request((), paths, ("debian-6.1", "debian-6.12"), tmp_path / "results")


OBSERVER: Observer = Silent()


def test_kernel_by_kernel_and_never_twice(ran: Ran, request_: Request) -> None:
    done = run_matrix(request_, OBSERVER)
    assert ran.asked == [("X1 on debian-6.1", "X2 on debian-6.1"), ("X1 on debian-6.12", "X2 on debian-6.12")]
    assert done.complete and done.exit_code == 0
    assert [column.model and column.model.release for column in done.columns] == [(6, 1, 192), (6, 12, 117)]
    again = run_matrix(request_, OBSERVER)
    assert len(ran.asked) == 2 and again == done


def test_only_what_was_kept_is_judged_again(ran: Ran, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []

    def judge(cell: kernel_matrix.Kept, variant: str, observer: Observer) -> kernel_matrix.Kept:
        judged.append(cell.verdict.scenario)
        return cell

    monkeypatch.setattr(kernel_matrix, "_again", judge)
    run_matrix(request_, OBSERVER, judge_again=True)
    assert judged == [], "today's model has judged it as it was performed"
    run_matrix(request_, OBSERVER, judge_again=True)
    assert judged, "it was kept"
    ran.interrupts_after = 0
    count = len(judged)
    run_matrix(replace(request_, results=request_.results / "new"), OBSERVER, judge_again=True)
    assert len(judged) == count, "who interrupts it does not wait for that"


def test_an_interrupted_matrix_goes_on(ran: Ran, request_: Request) -> None:
    ran.interrupts_after = 1
    first = run_matrix(request_, OBSERVER)
    assert first.interrupted and not first.complete and first.exit_code == 130
    ran.interrupts_after = 99
    assert run_matrix(request_, OBSERVER).complete
    assert ran.asked[1:] == [("X1 on debian-6.12", "X2 on debian-6.12")]


def test_a_scenario_that_changed_and_an_error_are_performed_again(ran: Ran, request_: Request, tmp_path: Path) -> None:
    ran.status["X2", "debian-6.1"] = Status.ERROR
    assert not run_matrix(request_, OBSERVER).complete
    ran.status.clear()
    (tmp_path / "X1.toml").write_text(SCENARIO.format("X1", 2))
    assert run_matrix(request_, OBSERVER).complete
    assert ran.asked[2:] == [("X1 on debian-6.1", "X2 on debian-6.1"), ("X1 on debian-6.12",)]


def test_a_kernel_of_another_level_is_another_kernel(ran: Ran, request_: Request, tmp_path: Path) -> None:
    run_matrix(request_, OBSERVER)
    ran.made_from["debian-6.12"] = "linux-image 6.12.118-1"
    (tmp_path / "X1.toml").write_text(SCENARIO.format("X1", 2))
    run_matrix(replace(request_, kernels=("debian-6.12",)), OBSERVER)
    scenarios = read_scenarios(request_.scenario_paths)
    assert set(kept(request_.results, "debian-6.12", scenarios)) == {"X1"}
    run_matrix(replace(request_, kernels=("debian-6.12",)), OBSERVER)
    assert ran.asked[-1] == ("X2 on debian-6.12",)


def test_what_is_there_is_laid_out_without_performing_the_rest(ran: Ran, request_: Request) -> None:
    run_matrix(replace(request_, kernels=("debian-6.1",)), OBSERVER)
    shown = run_matrix(request_, OBSERVER, perform=False)
    assert len(ran.asked) == 1 and not shown.complete and shown.exit_code == 3
    assert [[cell is not None for cell in row.cells] for row in shown.rows] == [[True, False], [True, False]]


def test_red_is_not_green_and_is_kept(ran: Ran, request_: Request) -> None:
    ran.status["X1", "debian-6.12"] = Status.FAIL
    done = run_matrix(request_, OBSERVER)
    assert done.complete and done.exit_code == 1
    assert run_matrix(request_, OBSERVER).exit_code == 1 and len(ran.asked) == 2


def test_the_options_of_a_run_decide_what_is_green(ran: Ran, request_: Request) -> None:
    """As for `apf run`: neither UNSUPPORTED nor a finding is green by itself."""
    ran.status["X1", "debian-6.1"] = Status.UNSUPPORTED
    assert run_matrix(request_, OBSERVER).exit_code == 1
    allowed = replace(request_, allow_unsupported=frozenset({"X1"}))
    assert run_matrix(allowed, OBSERVER).exit_code == 0
    with pytest.raises(UsageError, match="X9: there is no such scenario"):
        run_matrix(replace(request_, allow_unsupported=frozenset({"X9"})), OBSERVER)
    ran.status["X2", "debian-6.12"] = Status.FINDING
    found = replace(allowed, results=request_.results.with_name("others"))
    assert run_matrix(found, OBSERVER).exit_code == 1
    for kernels, code in ((("debian-6.12",), 0), (("debian-5.*",), 1)):
        accepted = (AcceptedFinding("F1", kernels, "not fixed yet"),)
        assert run_matrix(replace(found, accepted=accepted), OBSERVER).exit_code == code


def test_a_machine_that_is_not_as_it_was_makes_it_red(ran: Ran, request_: Request) -> None:
    ran.troubles = ("bigbox is not as before",)
    done = run_matrix(request_, OBSERVER)
    assert done.complete and done.exit_code == 3
    assert set(done.result.troubles) == set(ran.troubles)


def test_a_host_s_own_kernel_is_one_column_and_another_build_is_performed_anew(
    ran: Ran, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-11-02)"
    monkeypatch.setattr(kernel_matrix, "running_build", lambda *_: ran.made_from["local"])
    ran.made_from["local"] = built
    own = replace(request_, kernels=(), host="local")
    done = run_matrix(own, OBSERVER)
    assert done.complete and [column.name for column in done.columns] == ["local"]
    assert done.columns[0].model is not None and done.columns[0].model.release == (6, 1, 192)
    run_matrix(own, OBSERVER)
    assert ran.asked == [("X1 on local", "X2 on local")]
    ran.made_from["local"] = built.replace("192-1", "193-1")
    run_matrix(own, OBSERVER)
    assert ran.asked[1:] == [("X1 on local", "X2 on local")]


def test_what_this_machine_runs_is_asked_for(request_: Request) -> None:
    """Where it can be a host; a host that boots what it is asked for has no build of its own."""
    assert running_build(request_, OBSERVER) == ""
    found = running_build(replace(request_, kernels=(), host="local"), OBSERVER)
    assert found == (os.uname().version if os.path.exists("/dev/kvm") and os.geteuid() == 0 else "")
