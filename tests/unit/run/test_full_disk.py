# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk of the runner is full while a scenario is performed: the machine's fault, and never instead of the kernel's.

/dev/full takes nothing, as a disk that is full; the host is a stand-in that says what it is told to.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import KernelFault
from harness.hosts.base import HostDescription
from harness.hosts.performer import Payload
from harness.hosts.untar import untar
from harness.judge.verdict_types import Stage
from harness.model.kernels import Variant
from harness.results import Key, Row
from harness.run import runner
from harness.run.drawings import write_drawings
from harness.run.error_status import failure_of
from harness.run.host_slot import HostSlot
from harness.run.judge_folder import judge_folder_whole
from harness.run.request import Request
from harness.run.run_folder import ResultsNotWritten, RunFolder
from harness.run.runner import perform_jobs
from harness.run.selection import Job
from harness.run.setup import HostSetup
from harness.run.worker import Worker
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.run.test_bad_luck import Listener
from tests.unit.scenarios import all_scenarios

CAPTURES = Path(__file__).parents[2] / "data/captures"
PANIC = KernelFault("panic on the host: Kernel panic", said="Kernel panic")


class FullDisk:
    """A host whose console and capture cannot be written here.

    ``asked``: what the agent's answer ends in; ``found``: what is on its console in the end.
    """

    def __init__(self, out: Path, asked: KernelFault | None = None, found: KernelFault | None = None) -> None:
        self.facts = HostDescription("virtual", "tcg", "6.1.192", "/dev/vdb")
        self.tainted = ""
        self._out, self._asked, self._found = out, asked, found

    def taint(self, reason: str) -> None:
        self.tainted = self.tainted or reason

    def put(self, _source: Path, _target: str, *, deadline_s: float) -> None: ...
    def run(self, _argv: list[str], *, deadline_s: float) -> None: ...

    def converse(self, _argv: list[str]) -> FullDisk:
        return self

    def ask(self, _line: str, *, deadline_s: float, on_line: Callable[[str], bool]) -> None:
        if self._asked is not None:
            raise self._asked
        assert on_line('{"served": 0, "stderr": ""}')

    def close(self) -> None: ...

    def fetch(self, _source: str, target: Path, *, deadline_s: float, remove: bool = False) -> None:
        (target / "left.bin").unlink(missing_ok=True)
        (target / "left.bin").symlink_to("/dev/full")
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            entry = tarfile.TarInfo("left.bin")
            entry.size = 2
            archive.addfile(entry, io.BytesIO(b"{}"))
        untar(data.getvalue(), target)

    def console_mark(self) -> int:
        (self._out / "host").mkdir(parents=True)
        (self._out / "host/console.txt").symlink_to("/dev/full")
        return 0

    def console(self, _since: int = 0) -> bytes:
        return b"Kernel panic\n"

    def stalls(self, _since: int = 0) -> tuple[()]:
        return ()

    def guest_stalls(self, _console: bytes) -> tuple[()]:
        return ()

    def slowness(self) -> float:
        return 1.0

    def check(self) -> None:
        if self._found is not None:
            raise self._found

    def diagnose(self) -> str:
        return "the last of its console"


def perform(tmp_path: Path, **told: KernelFault) -> tuple[Row, FullDisk]:
    folder = RunFolder.create(tmp_path, datetime.datetime.now())
    key = Key("S29", "debian-6.1")
    host: Any = FullDisk(folder.path / key.folder / "capture", **told)

    @contextlib.contextmanager
    def start() -> Iterator[Any]:
        yield host

    payload = Payload(Path("agent"), Path("probe"))
    setup = HostSetup(start, payload, Variant.NOWAIT, "nowait", {})
    with HostSlot(start, payload) as slot:
        worker = Worker(setup, slot, Request(results=tmp_path), folder, Listener(""))
        return worker.perform(Job(key, all_scenarios()["S29"])), host


def test_it_is_the_machines_fault_with_the_folder_and_what_to_do(tmp_path: Path) -> None:
    row, host = perform(tmp_path)
    assert (row.status, row.verdict.stage) == (Status.ERROR, Stage.PERFORM)
    first, *more = row.verdict.reason.splitlines()
    assert first.startswith("this machine: ") and first.endswith("/S29+debian-6.1/capture: No space left on device")
    assert "free space there" in more[0] and "--results" in more[0]
    assert host.tainted


@pytest.mark.parametrize("told", [{"asked": PANIC}, {"found": PANIC}], ids=["while it runs", "at its end"])
def test_it_does_not_hide_that_the_kernel_died(told: dict[str, KernelFault], tmp_path: Path) -> None:
    row, _host = perform(tmp_path, **told)
    assert (row.status, row.verdict.reason) == (Status.FAIL, PANIC.message)
    assert "the last of its console" in row.verdict.log


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (PermissionError(13, "Permission denied", "/results/x"), "this machine: /results/x: Permission denied"),
        (OSError(28, "No space left on device"), "this machine: here: No space left on device"),
        (OSError(24, "Too many open files"), "this machine: here: Too many open files"),
        (BrokenPipeError(32, "Broken pipe"), "bug in the harness: BrokenPipeError"),
        (FileNotFoundError(2, "No such file or directory", "x"), "bug in the harness: FileNotFoundError"),
    ],
)
def test_whose_fault_an_error_of_the_system_is(exc: OSError, reason: str) -> None:
    failure = failure_of(exc, Stage.PERFORM, Path("here"))
    assert failure.status is Status.ERROR and failure.reason.startswith(reason)
    assert type(exc).__name__ in failure.log


def test_a_picture_that_cannot_be_written_costs_no_verdict(tmp_path: Path) -> None:
    judged = judge_folder_whole(CAPTURES / "S29", "nowait")
    write_drawings(tmp_path / "gone", judged)
    assert not (tmp_path / "gone").exists()


def test_a_verdict_that_cannot_be_written_is_told_and_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it: nothing else could be written either."""

    @contextlib.contextmanager
    def start(_kernel: str, _jobs: object, _request: object, folder: RunFolder, _observer: object) -> Iterator[Any]:
        def perform(job: Job) -> Row:
            (folder.path / job.key.folder).write_text("a file is in the way of the verdict's folder")
            return row_of(job.key, Status.FAIL, "D05: owed")

        yield SimpleNamespace(facts={}, perform=perform)

    monkeypatch.setattr(runner, "start_worker", start)
    jobs = [Job(Key(name, "debian-6.1"), all_scenarios()[name]) for name in ("S23", "S29")]
    listener = Listener("")
    with pytest.raises(ResultsNotWritten, match=r"S23.debian-6\.1: File exists") as caught:
        perform_jobs(jobs, Request(results=tmp_path, hosts=1), listener)
    assert "--results" in caught.value.hint
    assert [(row.key.scenario, row.status) for row in listener.rows] == [("S23", Status.FAIL)]
