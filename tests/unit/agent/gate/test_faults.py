# SPDX-License-Identifier: GPL-2.0-or-later
"""Missing pages of a real process: held, put there, and let go whatever happens to the server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.agent.gate import leave
from harness.agent.gate.control import Gate
from harness.agent.gate.faults import open_faults
from harness.agent.host.kernel_files import PAGE, read_text
from harness.agent.host.undo import Journal, pending, undo
from harness.agent.host.userfault import has_userfaultfd
from tests.unit.agent.conftest import root_only
from tests.unit.waiting import wait_until

pytestmark = [root_only, pytest.mark.skipif(not has_userfaultfd(), reason="this kernel has no userfaultfd")]

PAGES, PLANNED = 7, 4
CHILD = f"""
import ctypes, mmap, os, sys
memory = mmap.mmap(-1, {PAGES * PAGE}, flags=mmap.MAP_ANONYMOUS | (mmap.MAP_SHARED if sys.argv[1] == "shared" else
                   mmap.MAP_PRIVATE))
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
for line in sys.stdin:
    page = int(line)
    print(memory[page * {PAGE}], flush=True)
"""


@dataclass(slots=True)
class Child:
    process: subprocess.Popen[str]
    address: int
    gate: Gate
    journal: str

    def touch(self, page: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{page}\n")
        self.process.stdin.flush()

    def value(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def held(self) -> int:
        return self.gate.log().held


@pytest.fixture(params=["private", "shared"])
def child(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Child]:
    """Its page n holds n + 1, once it is there; reads of the planned ones are held until the word."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, request.param], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = int(process.stdout.readline())
        path = str(tmp_path / "journal")

        def content(gpa: int) -> bytes | None:
            return bytes([gpa // PAGE + 1]) * PAGE if gpa < PLANNED * PAGE else None

        gate = open_faults(Journal(path), process.pid, address, PAGES * PAGE, content)
        trace = tmp_path / "trace_pipe"
        trace.write_text("")
        gate.arm(rule="step", order="given", tids=[], pages={n * PAGE >> 9: n for n in range(PLANNED)}, errors=[],
                 after_s=0, ram_hva=-1, apic_ids=[], moved=False, trace=str(trace))  # fmt: skip
        yield Child(process, address, gate, path)
        leave.end_server(gate.pid)
        process.kill()


def asleep(child: Child) -> bool:
    return read_text(f"/proc/{child.process.pid}/wchan").strip() == "handle_userfault" and child.held() == 1


def test_put_there_when_the_gate_opens(child: Child) -> None:
    child.touch(2)
    wait_until(lambda: asleep(child), "a thread that sleeps on the page")
    child.gate.open()
    assert child.value() == 3
    child.touch(0)
    assert child.value() == 1
    child.touch(2)
    assert child.value() == 3  # it is there, nobody is asked


def test_what_nobody_planned_is_zero_and_comes_at_once_with_what_is_behind_it(child: Child) -> None:
    """QEMU reads all of RAM for a snapshot, page by page."""
    for page in (PAGES - 1, PLANNED, PLANNED + 1):
        child.touch(page)
        assert child.value() == 0
    assert [read.sector * 512 // PAGE for read in child.gate.log().reads] == [PAGES - 1, PLANNED]


def test_nobody_but_the_server_holds_the_descriptor(child: Child) -> None:
    def holds(pid: int) -> bool:
        found = []
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # of the listing itself
                found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        return any("userfaultfd" in link for link in found)

    assert [holds(pid) for pid in (child.gate.pid, child.process.pid, os.getpid())] == [True, False, False]


@pytest.mark.parametrize("harm", ["nothing", "killed", "stopped", "agent-gone"])
def test_undone_with_a_thread_asleep(child: Child, harm: str) -> None:
    """Who sleeps on a page would for ever."""
    child.touch(1)
    wait_until(lambda: asleep(child), "a thread that sleeps on the page")
    if harm == "killed":
        os.kill(child.gate.pid, signal.SIGKILL)
    elif harm == "stopped":
        os.kill(child.gate.pid, signal.SIGSTOP)
    elif harm == "agent-gone":
        child.gate.close()
    assert undo(child.journal) == [] and pending(child.journal) == []
    assert child.value() == 0  # as it would be without: a page of zeros
