# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said before a scenario is performed, and whether its host is used again."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.judge.verdict_types import Stage, Verdict
from harness.model.kernels import kernel_for
from harness.prediction import unending
from harness.results import Key
from harness.run.request import Request
from harness.run.run_folder import RunFolder
from harness.run.selection import Job
from harness.run.worker import Attempt, Worker, uses_up
from harness.scenario.build import build_plan
from harness.scenario.load import load_text
from harness.status import Status
from tests.unit.scenarios import all_scenarios, plan_of


@pytest.mark.parametrize(
    ("name", "release", "ends"),
    [("S84", "6.1.158", False), ("S84", "6.1.192", True), ("S23", "6.1.192", True), ("S02", "6.1.192", True)],
)
def test_a_program_that_never_ends_is_told_before_it_is_performed(name: str, release: str, ends: bool) -> None:
    kernel, plan = kernel_for("nowait", release), plan_of(name)
    left = unending(plan, kernel)
    assert bool(left) is not ends
    told: list[str] = []
    setup: Any = SimpleNamespace(kernel=kernel)
    observer: Any = SimpleNamespace(line=told.append)
    nothing: Any = None
    Worker(setup, nothing, nothing, nothing, observer)._warn(Job(Key(name, "k"), all_scenarios()[name]), plan)
    assert len(told) == (not ends)
    for line in told:
        assert line.startswith(f"{name} on k: ") and "never ends" in line and f"deadline of {plan.deadline_s} s" in line
        assert str(left[0]) in line


def test_a_plan_that_the_model_does_not_get_through_is_told_before_it_is_performed() -> None:
    text = """id = "L1"
title = "a page is read before lock-read"
[memory]
backing = "file"
[pages.f]
groups = 1
start = "dropped"
[[steps]]
touch = "f[0]"
then = "wait"
[[steps]]
host = [{ do = "lock-read", page = "f[0]" }]
"""
    (scenario,) = load_text("x.toml", text)
    told: list[str] = []
    setup: Any = SimpleNamespace(kernel=kernel_for("nowait", "6.1.192"))
    observer: Any = SimpleNamespace(line=told.append)
    nothing: Any = None
    Worker(setup, nothing, nothing, nothing, observer)._warn(Job(Key("L1", "k"), scenario), build_plan(scenario, 1))
    (line,) = told
    assert line.startswith("L1 on k: the model does not get through this plan: lock-read of f[0]")
    assert "put it first" in line


@pytest.mark.parametrize("wrong_kernel", [False, True])
@pytest.mark.parametrize("status", list(Status))
def test_a_wrong_kernels_host_is_used_again_only_while_all_is_as_predicted(status: Status, wrong_kernel: bool) -> None:
    verdict = Verdict(scenario="S60", status=status)
    suspect = status in (Status.FAIL, Status.INCONCLUSIVE, Status.ERROR)
    assert uses_up(verdict, wrong_kernel=wrong_kernel) is (suspect and wrong_kernel)


@pytest.mark.parametrize("wrong_kernel", [False, True])
def test_a_host_that_a_verdict_taints_is_never_used_again(wrong_kernel: bool) -> None:
    assert uses_up(Verdict(scenario="S60", status=Status.PASS, taints=True), wrong_kernel=wrong_kernel)


@pytest.mark.parametrize(
    ("end", "taints"),
    [
        ('{"format": 6, "nonce": 1, "status": "done", "reason": "", "undone": true}', False),
        ('{"format": 6, "nonce": 1, "status": "done", "reason": "swapoff", "undone": false}', True),
        ('{"format": 6, "nonce": 1, "status": "guest-timeout", "reason": "60 s", "undone": true}', True),
        ("{", True),
        (None, True),
    ],
)
def test_a_judge_that_gives_up_does_not_make_a_host_clean(tmp_path: Path, end: str | None, taints: bool) -> None:
    """A model of another kind of kernel cannot judge anything."""
    if end is not None:
        (tmp_path / "end.json").write_text(end)
    setup: Any = SimpleNamespace(model=None, variant="nowait")
    listener: Any = SimpleNamespace(progress=lambda _: None)
    nothing: Any = None
    worker = Worker(setup, nothing, nothing, nothing, listener)
    verdict = worker._verdict(plan_of("S23"), tmp_path, Attempt())
    assert not verdict.status.as_predicted and verdict.taints is taints


def test_a_bug_of_ours_costs_its_own_job_alone(tmp_path: Path) -> None:
    """Whatever is raised behind the plan, here by who looks at the model of the kernel."""
    tainted: list[str] = []
    slot: Any = SimpleNamespace(host=SimpleNamespace(taint=tainted.append))
    observer: Any = SimpleNamespace(scope=lambda _: None, line=lambda _: None, progress=lambda _: None)
    setup: Any = SimpleNamespace(variant="nowait", kernel=object())
    folder = RunFolder.create(tmp_path, datetime.datetime.now())
    request = Request(kernels=("debian-6.1",))
    row = Worker(setup, slot, request, folder, observer).perform(Job(Key("S23", "debian-6.1"), all_scenarios()["S23"]))
    assert row.status is Status.ERROR and row.verdict.stage is Stage.JUDGE and "AttributeError" in row.verdict.reason
    assert len(tainted) == 1
