# SPDX-License-Identifier: GPL-2.0-or-later
"""Several workers at once: real processes; what they perform is a stand-in here, because a host takes too long.

test_bad_luck.py has the same with real hosts.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from types import TracebackType

import pytest

from harness.errors import BuildFailed, Unsupported, UsageError
from harness.results import Row, RunResult
from harness.run import pool
from harness.run.request import Request
from harness.run.runner import perform_jobs
from harness.run.selection import Job, plan_jobs
from harness.scenario.load import load_all
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.waiting import is_gone, wait_until

TEXT = 'id = "{}"\ntitle = "t"\n[pages.f]\ngroups = 1\n[[steps]]\ntouch = "f"\n'


def wait_for(*names: str) -> None:
    """What other processes have left in this folder."""
    wait_until(lambda: all(Path(name).exists() for name in names), " and ".join(names))


class Listener:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.lines: list[str] = []
        self._scope = ""

    def scope(self, prefix: str) -> None:
        self._scope = prefix

    def progress(self, what: str, done: float | None = None) -> None:
        self.told.append((self._scope, what))

    def line(self, text: str = "") -> None:
        self.lines.append(text)

    def verdict(self, row: Row) -> None: ...


class StandIn:
    """Performs a job by doing what the kernel's name and the scenario's id say."""

    def __init__(self, kernel: str, jobs: object, request: Request, folder: object, observer: Listener) -> None:
        self.kernel, self.observer = kernel, observer
        self.facts = {f"{kernel} pid": str(os.getpid())}

    def __enter__(self) -> StandIn:
        self.observer.scope(self.kernel)
        self.observer.progress("making")
        if self.kernel == "broken":
            raise BuildFailed("it does not build")
        if self.kernel == "absent":
            raise Unsupported("no mirror has it")
        if self.kernel == "misused":
            raise UsageError("not like this")
        if self.kernel == "slow-to-make":
            wait_for("left-quick")
        if self.kernel == "dies-at-once":
            os.kill(os.getpid(), signal.SIGKILL)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        Path(f"left-{self.kernel}").touch()
        if kind is not None:
            Path(f"tidy-{self.kernel}").write_text(kind.__name__)
        if self.kernel == "does-not-end":
            raise BuildFailed("its QEMU cannot be ended")

    def perform(self, job: Job) -> Row:
        if job.scenario.id == "DIE":
            os.kill(os.getpid(), signal.SIGKILL)
        if job.scenario.id == "LONG":
            Path(f"long-{self.kernel}").touch()
            time.sleep(1000)
        if self.kernel == "shared":
            Path(f"performs-{os.getpid()}").touch()
            wait_until(lambda: len(list(Path().glob("performs-*"))) > 1, "another host of this kernel")
        return row_of(job.key, Status.PASS, title=str(os.getpid()))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pool, "start_worker", StandIn)
    monkeypatch.chdir(tmp_path)


def perform(ids: str, kernels: str, hosts: int = 2) -> tuple[RunResult, Path, Listener]:
    scenarios = load_all([(f"{name}.toml", TEXT.format(name)) for name in ids.split()])
    jobs = plan_jobs(scenarios, dict.fromkeys(kernels.split(), "nowait"))
    listener = Listener()
    result, folder = perform_jobs(jobs, Request(results=Path("results"), hosts=hosts), listener)
    return result, folder, listener


def test_two_kernels_each_in_a_process_of_its_own() -> None:
    result, folder, listener = perform("A B", "one two")
    assert result.missing == () and result.exit_code == 0
    pids = {key.kernel: {row.title for row in result.rows if row.key.kernel == key.kernel} for key in result.planned}
    assert len(pids["one"]) == len(pids["two"]) == 1
    assert len(pids["one"] | pids["two"] | {str(os.getpid())}) == 3
    assert {("one", "making"), ("two", "making")} <= set(listener.told)
    assert set(result.facts) == {"harness", "host", "one pid", "two pid"}
    assert json.loads((folder / "results.json").read_text())["missing"] == []


def test_one_kernel_with_much_to_do_gets_a_second_host() -> None:
    result, _, _ = perform(" ".join(f"S{n}" for n in range(20)), "shared")
    assert len({row.title for row in result.rows}) == 2
    assert [key for key in result.planned if key not in {row.key for row in result.rows}] == []
    assert len(result.rows) == 20


def test_no_more_hosts_than_allowed() -> None:
    result, _, _ = perform(" ".join(f"S{n}" for n in range(20)), "one two three", hosts=2)
    assert len(result.rows) == 60 and result.exit_code == 0


def test_the_others_run_while_one_is_being_made() -> None:
    result, _, _ = perform("A B", "slow-to-make quick")
    assert [row.key.kernel for row in result.rows] == ["quick", "quick", "slow-to-make", "slow-to-make"]


@pytest.mark.parametrize(
    ("kernel", "status", "reason"),
    [
        ("broken", Status.ERROR, "does not build"),
        ("absent", Status.UNSUPPORTED, "no mirror"),
        ("dies-at-once", Status.ERROR, "SIGKILL"),
    ],
)
def test_a_kernel_without_a_host_does_not_touch_the_others(kernel: str, status: Status, reason: str) -> None:
    result, _, _ = perform("A B", f"{kernel} good")
    assert result.missing == ()
    for row in result.rows:
        assert row.status is (status if row.key.kernel == kernel else Status.PASS)
        assert (reason in row.verdict.reason) == (row.key.kernel == kernel)


def test_a_worker_that_is_killed_costs_its_job_and_no_other() -> None:
    result, _, _ = perform("A DIE Z", "one two")
    assert result.missing == ()
    verdicts = {(row.key.scenario, row.key.kernel): row for row in result.rows}
    assert [verdicts["DIE", kernel].status for kernel in ("one", "two")] == [Status.ERROR] * 2
    assert "SIGKILL" in verdicts["DIE", "one"].verdict.reason
    assert [verdicts[s, kernel].status for s in "AZ" for kernel in ("one", "two")] == [Status.PASS] * 4


def test_a_host_that_cannot_be_ended_is_told() -> None:
    result, _, listener = perform("A B", "does-not-end good")
    assert [row.status for row in result.rows] == [Status.PASS] * 4
    assert listener.lines == ["a worker of does-not-end ended with an error: its QEMU cannot be ended"]


def test_bad_usage_ends_everything() -> None:
    with pytest.raises(UsageError, match="not like this"):
        perform("A B", "misused good")


def test_ctrl_c_ends_the_workers_in_order() -> None:
    def press() -> None:
        try:
            wait_for("long-one", "long-two")
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    result, folder, _ = perform("A LONG", "one two")
    assert result.interrupted and result.exit_code == 130
    assert {(row.key.scenario, row.status) for row in result.rows} == {("A", Status.PASS)}
    assert [key.scenario for key in result.missing] == ["LONG", "LONG"]
    assert Path("tidy-one").read_text() == Path("tidy-two").read_text() == "Interrupted"
    assert json.loads((folder / "results.json").read_text())["interrupted"] is True


def test_room_is_at_least_one_and_at_most_the_processors() -> None:
    assert 1 <= pool.room() <= len(os.sched_getaffinity(0))


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_workers_die_with_us() -> None:
    runner = multiprocessing.get_context("fork").Process(target=perform, args=("LONG A", "one two"))
    runner.start()
    assert runner.pid is not None
    wait_for("long-one", "long-two")  # so they have asked for their death signal
    workers = children(runner.pid)
    assert len(workers) == 2
    runner.kill()
    runner.join()
    wait_until(lambda: all(map(is_gone, workers)), "the workers' end")
