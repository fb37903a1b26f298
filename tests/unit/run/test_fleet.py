# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs on other machines: with processes of this one as the executor, and with a real Dask fleet on loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli import parser
from harness.errors import HostLost, InfraFault, UsageError
from harness.judge.verdict_types import Verdict
from harness.results import Key
from harness.run import fleet_chunk, fleet_client
from harness.run.exploration import ExploreOrder, explore
from harness.run.fleet import FleetPool, chunks_of
from harness.run.fleet_chunk import FleetChunk, _performed, perform_chunk, version_of_this
from harness.run.fleet_client import FleetAddress, open_fleet
from harness.run.one_performer import one_performer
from harness.run.request import Request
from harness.run.run_folder import RunFolder
from harness.run.runner import perform_jobs
from harness.run.selection import Job, plan_jobs
from harness.scenario.dump import dump
from harness.status import Status
from tests.unit.hosts.lab_machine import apf
from tests.unit.hosts.qemus import qemus_below
from tests.unit.run.dask_fleet import Fleet, certificate, start_fleet
from tests.unit.run.matrix_page import cell, direct
from tests.unit.run.test_bad_luck import Listener
from tests.unit.scenarios import all_scenarios
from tests.unit.waiting import HANG_S, is_gone, wait_until

KERNELS = {"/nonexistent/a/bzImage": "nowait", "/nonexistent/b/bzImage": "nowait"}
"""`apf run` on a worker refuses them (exit code 2, no results): the quickest thing that really happens there."""


def jobs_of(*ids: str, kernels: dict[str, str] = KERNELS, repeats: int = 1) -> tuple[Job, ...]:
    return plan_jobs([s for s in all_scenarios().values() if s.id in ids], kernels, repeats)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3)), max_size=30), st.integers(1, 5))
def test_chunks_are_of_one_kernel_and_repeat_and_lose_nothing(told: list[tuple[str, int]], size: int) -> None:
    jobs = [Job(Key(f"S{n}", kernel, repeat), all_scenarios()["S23"]) for n, (kernel, repeat) in enumerate(told)]
    chunks = chunks_of(jobs, size)
    assert [job for chunk in chunks for job in chunk] == jobs
    for chunk in chunks:
        assert 0 < len(chunk) <= size
        assert len({(job.key.kernel, job.key.repeat) for job in chunk}) == 1


@pytest.mark.parametrize(
    "address",
    ["tcp://192.0.2.7:8786", "tcp://scheduler.example.org:8786", "tcp://0.0.0.0:8786", "tcp://[2001:db8::1]:8786"],
)
def test_a_scheduler_that_knows_nobody_is_refused_off_loopback(address: str) -> None:
    with pytest.raises(UsageError, match="anybody who reaches it"):
        FleetAddress(address).check()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "tcp://localhost:1", "tcp://[::1]:8786"])
def test_on_this_machine_it_may(address: str) -> None:
    FleetAddress(address).check()


@pytest.mark.parametrize("address", ["127.0.0.1:8786", "http://127.0.0.1:1", "tls://", "tls://a b:1", "ucx://a:1"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="is no scheduler"):
        FleetAddress(address).check()


def test_tls_needs_its_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs --tls-ca FILE, --tls-cert FILE, --tls-key FILE"):
        FleetAddress("tls://a:1").check()
    absent = tmp_path / "absent"
    with pytest.raises(UsageError, match="absent is not a file"):
        FleetAddress("tls://a:1", absent, absent, absent).check()


def test_another_version_is_refused() -> None:
    with pytest.raises(InfraFault, match="another version"):
        perform_chunk(FleetChunk("0" * 64, "debian-6.1", ()))


def test_what_apf_run_says_is_told() -> None:
    with pytest.raises(
        InfraFault, match=r"ended with code 2 and left no results: .*there is no kernel at /nonexistent"
    ):
        perform_chunk(FleetChunk(version_of_this(), "/nonexistent/a/bzImage", (dump(jobs_of("S23")[0].scenario),)))


class Broken(Executor):
    """Its calls end as told."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)

    def submit(self, *_args: Any, **_more: Any) -> Future[Any]:
        future: Future[Any] = Future()
        result = self.results.pop(0)
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
        return future


def pool(tmp_path: Path, jobs: tuple[Job, ...], executor: Executor, **more: Any) -> FleetPool:
    folder = RunFolder.create(tmp_path, datetime.datetime.now())
    return FleetPool(jobs, Request(kernels=tuple(KERNELS)), folder, Listener(""), executor, **more)


def test_every_job_has_a_verdict_whatever_comes_back(tmp_path: Path) -> None:
    jobs = jobs_of("S23", "S29")
    rows = list(pool(tmp_path, jobs, Broken(OSError("worker lost"), b"no tar at all")).rows())
    assert {row.key for row in rows} == {job.key for job in jobs}
    assert {row.status for row in rows} == {Status.ERROR}
    reasons = {row.key.kernel: row.verdict.reason for row in rows}
    first, second = KERNELS
    assert "worker lost" in reasons[first] and "archive" in reasons[second]


class Noted(Broken):
    """Keeps the chunks that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[FleetChunk] = []

    def submit(self, *args: Any, **more: Any) -> Future[Any]:
        self.chunks += [each for each in args if isinstance(each, FleetChunk)]
        self.results.append(OSError("only noted"))
        return super().submit(*args, **more)


_FOR_THE_WORKER: dict[str, Any] = {
    "disk": "/dev/sdz", "wait_s": 7.0, "guest_kernel": "debian-5.10", "host_qemu": "own", "guest_qemu": "bookworm",
    "wrong_kernel": True, "trace_dat": True,
}  # fmt: skip
_OTHERS = {
    # which jobs, and how often: these are told one by one
    *("patterns", "scenario_paths", "kernels", "repeats", "extra"),
    # done by who asks: results, what is green, the fleet itself; a worker has one host, which --host names
    *("results", "allow_unsupported", "accepted", "command", "fleet", "hosts", "host", "lab"),
}


def test_all_that_decides_how_it_is_done_is_told_to_the_worker(tmp_path: Path) -> None:
    assert {field.name for field in dataclasses.fields(Request)} == _OTHERS | set(_FOR_THE_WORKER)
    jobs = jobs_of("S23", kernels={"debian-6.1": "x"})
    plain = Request(kernels=("debian-6.1",))

    def words(request: Request) -> tuple[str, ...]:
        noted = Noted()
        folder = RunFolder.create(tmp_path, datetime.datetime.now())
        list(FleetPool(jobs, request, folder, Listener(""), noted).rows())
        return noted.chunks[0].words

    for name, value in _FOR_THE_WORKER.items():
        told = words(dataclasses.replace(plain, **{name: value}))
        assert set(told) - set(words(plain)), name
        args = parser(["run"]).parse_args(["run", *told])
        as_read = getattr(args, {"wait_s": "wait"}.get(name, name))
        assert as_read == value, name


def test_a_lost_scheduler_ends_it(tmp_path: Path) -> None:
    def check() -> None:
        raise HostLost("the scheduler is lost")

    with pytest.raises(HostLost):
        list(pool(tmp_path, jobs_of("S23"), Broken(b"", b""), check=check).rows())


@pytest.fixture
def local_request(tmp_path: Path, host_settings: None) -> Request:
    """Scenarios that this machine, as the host, refuses after it was asked for real: UNSUPPORTED."""
    return Request(
        kernels=(), host="local", results=tmp_path / "results", wait_s=200,
        allow_unsupported=frozenset({"S23", "S29", "S60"}),
    )  # fmt: skip


no_kvm = pytest.mark.skipif(
    os.geteuid() != 0 or os.path.isdir("/sys/module/kvm_amd") or os.path.isdir("/sys/module/kvm_intel"),
    reason="for a machine that is root's and whose KVM runs nothing",
)


@pytest.mark.long
@no_kvm
def test_evidence_comes_back_as_if_it_had_been_performed_here(local_request: Request) -> None:
    request = local_request
    jobs = jobs_of("S23", "S29", kernels={"local": "nowait"}, repeats=2)
    folder = RunFolder.create(request.results, datetime.datetime.now())
    with ThreadPoolExecutor(1) as executor:
        made = FleetPool(jobs, request, folder, Listener(""), executor)
        rows = list(made.rows())
    assert {row.key for row in rows} == {job.key for job in jobs}
    assert {row.status for row in rows} == {Status.UNSUPPORTED}
    for row in rows:
        assert (folder.path / row.folder / "capture/end.json").exists(), row.key
    assert f"{os.uname().release}" in made.facts["local release"]


@pytest.fixture
def fleet(tmp_path: Path, host_settings: None) -> Iterator[Fleet]:
    """Its workers are of this machine, which is the test's until they are gone."""
    with start_fleet(tmp_path) as started:
        yield started


@pytest.mark.long
@no_kvm
def test_an_exploration_on_a_fleet(fleet: Fleet, local_request: Request) -> None:
    """Its plans come back with their evidence and their scenarios; this machine cannot perform any."""
    wanted = ExploreOrder(seed=1, plans=3, keep=True)
    found, folder = explore(wanted, replace(local_request, fleet=fleet.address), Listener(""))
    assert len(found.plans) == 3 and not found.interrupted
    for plan in found.plans:
        assert (folder / f"{plan.name}+local/capture/end.json").exists()
        assert (folder / f"{plan.name}+local/scenario.toml").exists()
        verdict = Verdict.from_json((folder / f"{plan.name}+local/verdict.json").read_text())
        assert verdict.status is Status.UNSUPPORTED


@pytest.mark.long
@no_kvm
def test_one_job_after_the_other_on_a_fleet(fleet: Fleet, local_request: Request) -> None:
    request = replace(local_request, fleet=fleet.address)
    folder = RunFolder.create(request.results, datetime.datetime.now())
    with one_performer("local", request, folder, Listener("")) as perform:
        rows = [perform(job) for job in jobs_of("S23", "S29", kernels={"local": "nowait"})]
    assert [(row.key.scenario, row.status) for row in rows] == [
        ("S23", Status.UNSUPPORTED), ("S29", Status.UNSUPPORTED)
    ]  # fmt: skip


@pytest.mark.long
@no_kvm
def test_a_lost_workers_jobs_go_to_another(fleet: Fleet, local_request: Request) -> None:
    """Two Dask workers with TLS, one killed while it performs: the report is whole."""
    jobs = jobs_of("S23", "S29", kernels={"local": "nowait"}, repeats=2)
    killed: list[int] = []

    class Killer(Listener):
        """Kills the worker that is at work, as soon as one has given verdicts."""

        def verdict(self, row: Any) -> None:
            super().verdict(row)
            if not killed:
                busy = [w for w in fleet.workers if _children(w.pid)] or fleet.workers
                killed.append(busy[0].pid)
                os.kill(busy[0].pid, signal.SIGKILL)

    observer = Killer("")
    result, folder = perform_jobs(jobs, replace(local_request, fleet=fleet.address), observer)
    assert killed
    assert result.exit_code == 0 and not result.missing, [row.verdict.reason for row in result.rows]
    assert {row.status for row in result.rows} == {Status.UNSUPPORTED}
    assert len(list(folder.glob("*/capture/end.json"))) == len(jobs)


@pytest.mark.long
def test_workers_that_are_gone_and_do_not_come_back_end_it(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_client, "_NO_WORKER_S", 0.5)
    with open_fleet(fleet.address) as (_, check):
        check()
        for worker in fleet.workers:
            worker.kill()
        with pytest.raises(HostLost, match=r"has had no worker for 0\.5 s"):
            wait_until(lambda: bool(check()), "an end")


_WAITING = """
import sys
from pathlib import Path
from harness.run.fleet_chunk import _performed
from harness.run.fleet_client import FleetAddress, open_fleet

address, ca, cert, key, noted = sys.argv[1:]
with open_fleet(FleetAddress(address, Path(ca), Path(cert), Path(key))) as (executor, _):
    script = f"echo $$ > {noted}.new; mv {noted}.new {noted}; exec sleep 100000"
    executor.submit(_performed, ["sh", "-c", script], 1e5).result()
"""


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_chunk_for_which_nobody_waits_any_more_ends(fleet: Fleet, tmp_path: Path, number: signal.Signals) -> None:
    """Dask cannot end it: the machine would be at work for minutes, for whoever has pressed Ctrl-C or was killed."""
    noted, files = tmp_path / "pid", [fleet.address.ca, fleet.address.cert, fleet.address.key]
    with subprocess.Popen(
        [sys.executable, "-c", _WAITING, fleet.address.address, *map(str, files), str(noted)],
        cwd=Path(__file__).parents[3], stderr=subprocess.DEVNULL,
    ) as client:  # fmt: skip
        wait_until(noted.exists, "a task at work")
        client.send_signal(number)
        client.wait(HANG_S)
    task = int(noted.read_text())
    wait_until(lambda: is_gone(task), "its end")
    with open_fleet(fleet.address) as (executor, _):  # and its worker takes the next
        assert executor.submit(_performed, ["true"], 60.0).result(HANG_S) == (0, "")


def test_it_ends_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_chunk, "is_given_up", (tmp_path / "began").exists)
    run = f"cd {tmp_path}; trap 'echo > tidied; exit 7' TERM; echo > began; while :; do sleep 0.1; done"
    with pytest.raises(InfraFault, match="nobody waits"):
        _performed(["sh", "-c", run], HANG_S)
    assert (tmp_path / "tidied").exists()


def test_it_does_not_outlive_an_error_of_who_looks_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> bool:
        raise OSError("no worker state")

    monkeypatch.setattr(fleet_chunk, "is_given_up", fails)
    with pytest.raises(OSError, match="no worker state"):
        _performed(["sleep", "100000"], HANG_S)


def _children(pid: int) -> str:
    with contextlib.suppress(OSError):
        return "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return ""


def test_others_do_not_get_in(fleet: Fleet, tmp_path: Path) -> None:
    """Without TLS, and with a certificate that nobody here has signed."""
    (tmp_path / "other").mkdir()
    cert, key = certificate(tmp_path / "other")
    plain = FleetAddress(fleet.address.address.replace("tls:", "tcp:"))
    for address in (plain, replace(fleet.address, ca=cert, cert=cert, key=key)):
        with pytest.raises(InfraFault, match="no scheduler answers"), open_fleet(address):
            pass


@pytest.mark.host
def test_a_worker_that_is_killed_while_its_virtual_host_is_at_work(fleet: Fleet, tmp_path: Path) -> None:
    """Of a matrix of two kernels: the report is whole, as predicted, and the dead worker's machine is gone."""
    jobs = jobs_of("S23", "S29", kernels={"debian-6.1": "nowait", "noio-6.1": "noio"}, repeats=2)
    machines: list[int] = []

    class Killer(Listener):
        """Kills a worker whose virtual host runs, as soon as a verdict has come from anywhere."""

        def verdict(self, row: Any) -> None:
            super().verdict(row)
            at_work = [worker for worker in fleet.workers if qemus_below(worker.pid)]
            if at_work and not machines:
                machines.extend(qemus_below(at_work[0].pid))
                os.kill(at_work[0].pid, signal.SIGKILL)

    request = Request(
        kernels=("debian-6.1", "noio-6.1"), host="virtual", results=tmp_path / "results", hosts=1, fleet=fleet.address
    )
    result, folder = perform_jobs(jobs, request, Killer(""))
    assert machines, "no worker had a virtual host when a verdict came"
    assert result.exit_code == 0 and not result.missing, [row.verdict.reason for row in result.rows]
    assert {row.key for row in result.rows} == {job.key for job in jobs}
    assert {row.status for row in result.rows} == {Status.PASS}
    assert len(list(folder.glob("*/capture/end.json"))) == len(jobs)
    assert not [pid for pid in machines if Path(f"/proc/{pid}").exists()]


@pytest.mark.host
def test_every_command_on_a_fleet_of_virtual_hosts(fleet: Fleet, tmp_path: Path) -> None:
    """A worker boots its own; what comes back is as if it had been performed here."""

    def told(*words: str) -> str:
        done = apf(*words, *fleet.where, "--results", str(tmp_path / words[0]))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    told("matrix", "S23", "--kernels", "debian-6.1", "--output", str(tmp_path / "page"))
    assert cell((tmp_path / "page").read_text(), "S23", "6.1") == direct("S23", "6.1")
    assert "caught" in told("mutants", "TOKEN_ZERO", "--no-control")
    told("explore", "--plans", "2", "--seed", "7", "--shrink", "0", "--kernel", "debian-6.1")
    (file,) = (tmp_path / "explore").glob("2*/explore.json")
    assert len(json.loads(file.read_text())["plans"]) == 2
