# SPDX-License-Identifier: GPL-2.0-or-later
"""Console text for people."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.contract.kernel_trouble import DUMP_BYTES, Blame
from harness.hosts.deadline import Deadline
from harness.hosts.virtual.console import tail
from harness.hosts.virtual.console_file import ConsoleWatch
from harness.hosts.virtual.run_delay import RunDelays
from tests.unit.waiting import HANG_S


def test_tail_is_safe_to_print() -> None:
    assert tail(b"one\r\n\x1b[2J\x1b[31mtwo\x07\x00\r\nthree \xff\n", 2) == "two\nthree �"


def test_a_stall_is_told_when_its_dump_is_there(tmp_path: Path) -> None:
    """Its first line does not say whose fault it is."""
    console = tmp_path / "console.txt"
    watch = ConsoleWatch(console, RunDelays(os.getpid()))
    first = b"[   25.6] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:\n"
    dump = b"[   25.7] RIP: 0010:asm_exc_int3+0x0/0x40\n"
    console.write_bytes(first)
    assert watch.fault() is None
    console.write_bytes(first + dump)
    deadline = Deadline.after(HANG_S, "the stall to be told")
    while (found := watch.fault()) is None:
        deadline.check()
    assert (found.kind, found.blame) == ("int3", Blame.MACHINE)


def test_a_stall_is_told_though_the_console_never_ends(tmp_path: Path) -> None:
    console = tmp_path / "console.txt"
    first = b"[   25.6] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:\n"
    console.write_bytes(first + b"[   25.7] RIP: 0010:schedule+0x1/0x2\n" * (DUMP_BYTES // 16))
    found = ConsoleWatch(console, RunDelays(os.getpid())).fault()
    assert found is not None and (found.kind, found.blame) == ("rcu-stall", Blame.KERNEL)


STALL = b"[   25.600000] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:\n"


_HASHING = """
import hashlib, os, threading
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
data = bytes(1 << 22)
def work():
    while True:
        hashlib.sha256(data)
for _ in range(16):
    threading.Thread(target=work).start()
"""


@pytest.fixture
def crowded() -> Iterator[RunDelays]:
    """A process with sixteen threads that want one processor: fifteen seconds of waiting in each."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel does not count how long a thread waits")
    with subprocess.Popen([sys.executable, "-c", _HASHING]) as process:
        try:
            yield RunDelays(process.pid)
        finally:
            process.kill()


def test_a_host_that_was_not_let_run_has_not_stalled(crowded: RunDelays, tmp_path: Path) -> None:
    console = tmp_path / "console.txt"
    console.write_bytes(b"")
    watch = ConsoleWatch(console, crowded)
    deadline = Deadline.after(HANG_S, "the threads to wait")
    while crowded.within(21.0).all_s < 15.0:
        deadline.check()
    console.write_bytes(STALL)
    assert watch.fault() is None
    (stall,) = watch.stalls()
    assert (stall.stamp, stall.starved) == ("25.600000", True) and stall.waited_s >= 15.0
    assert watch.stalls(len(STALL)) == ()
    console.write_bytes(STALL + b"[   26.000000] kernel BUG at mm/slub.c:1!\n")
    found = watch.fault()
    assert found is not None and (found.kind, found.offset) == ("bug", len(STALL) + len("[   26.000000] "))


def test_a_host_that_ran_all_the_time_has(tmp_path: Path) -> None:
    """A process that sleeps waits for no processor; a stall is weighed once, when it is new."""
    console = tmp_path / "console.txt"
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            watch = ConsoleWatch(console, RunDelays(process.pid))
            console.write_bytes(STALL + STALL.replace(b"25", b"88"))
            first = watch.stalls()
            assert [(s.stamp, s.starved) for s in first] == [("25.600000", False), ("88.600000", False)]
            assert watch.stalls() == first
        finally:
            process.kill()
    deadline = Deadline.after(HANG_S, "the stall to be told")
    while (found := watch.fault()) is None:
        deadline.check()
    assert (found.kind, found.blame) == ("rcu-stall", Blame.KERNEL)


def test_only_what_was_waited_lately_counts(crowded: RunDelays) -> None:
    crowded.look()
    deadline = Deadline.after(HANG_S, "the threads to wait")
    while crowded.within(100.0).all_s < 20.0:
        crowded.look()
        deadline.check()
    assert 0.0 < crowded.within(0.6).all_s < crowded.within(100.0).all_s
    assert crowded.worst(0.6).all_s >= crowded.within(0.6).all_s / 2


def test_a_guest_stalls_in_the_worst_seconds_of_its_host(crowded: RunDelays, tmp_path: Path) -> None:
    """When its kernel said it nobody knows."""
    (tmp_path / "console.txt").write_bytes(b"")
    watch = ConsoleWatch(tmp_path / "console.txt", crowded)
    deadline = Deadline.after(HANG_S, "the threads to wait")
    while crowded.within(20.0).all_s < 15.0:
        crowded.look()
        deadline.check()
    console = b"[    9.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [touch:1]\r\n[    9.1] all is well\r\n"
    (stall,) = watch.guest_stalls(console)
    assert (stall.stamp, stall.of_s, stall.worst, stall.own_s) == ("9.000000", 20.0, True, None)
    assert stall.waited_s >= 15.0 and stall.starved
    assert watch.stalls() == () and watch.guest_stalls(b"[    9.000000] all is well\n") == ()


NAMED = """
import hashlib, os, threading
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
data = bytes(1 << 22)
def work(name):
    open(f"/proc/self/task/{threading.get_native_id()}/comm", "w").write(name)
    while name[:5] != "CPU 2":
        hashlib.sha256(data)
    threading.Event().wait()
for name in ["CPU 0/TCG", "CPU 1/TCG", "CPU 2/TCG"] + ["worker"] * 13:
    threading.Thread(target=work, args=(name,)).start()
"""
"""Threads as QEMU names them; that of CPU 2 sleeps."""


def test_a_stall_is_weighed_by_the_processor_that_it_names(tmp_path: Path) -> None:
    """One whose thread slept, and so waited for no processor, could have gone on, however long the others waited.

    The line of an RCU stall is followed by one for each processor.
    """
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel does not count how long a thread waits")
    console = tmp_path / "console.txt"
    console.write_bytes(b"")
    with subprocess.Popen([sys.executable, "-c", NAMED]) as process:
        try:
            waiting = RunDelays(process.pid)
            watch = ConsoleWatch(console, waiting)
            deadline = Deadline.after(HANG_S, "the threads to wait")
            while waiting.within(60.0).of_cpu.get(1, 0.0) < 11.0:
                waiting.look()
                deadline.check()
            cpu_1 = STALL + b"[   25.600001] rcu: \t1-....: (5249 ticks this GP) idle=1 softirq=1/1 fqs=2\n"
            cpu_2 = cpu_1.replace(b"25", b"26").replace(b"\t1-", b"\t2-")
            both = cpu_1.replace(b"25", b"27") + b"[   27.600002] rcu: \t2-....: (5249 ticks this GP) idle=1\n"
            console.write_bytes(STALL.replace(b"25", b"24"))
            (nowhere,) = watch.stalls()
            console.write_bytes(console.read_bytes() + cpu_1 + cpu_2 + both)
            _, one, two, least = watch.stalls()
        finally:
            process.kill()
    assert nowhere.own_s is None and nowhere.cpus == 3
    assert one.own_s is not None and one.own_s > 10.5 and one.starved
    assert two.own_s is not None and two.own_s < 1.0 and not two.starved and two.waited_s > 100.0
    assert least.own_s == pytest.approx(two.own_s, abs=1.0) and not least.starved


def test_how_much_slower_a_host_was_made() -> None:
    """Sixteen threads have one processor, of which two run processors of a host; what sleeps was not made slower."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel does not count how long a thread waits")
    with subprocess.Popen([sys.executable, "-c", NAMED]) as process:
        try:
            waiting = RunDelays(process.pid)
            deadline = Deadline.after(HANG_S, "the threads to run")
            while (slowness := waiting.slowness()) == 1.0:
                deadline.check()
        finally:
            process.kill()
    assert slowness > 5.0
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            assert RunDelays(process.pid).slowness() == 1.0
        finally:
            process.kill()


def test_any_other_finding_is_told_at_once(tmp_path: Path) -> None:
    console = tmp_path / "console.txt"
    console.write_bytes(b"[   25.6] kernel BUG at mm/slub.c:1!\n")
    found = ConsoleWatch(console, RunDelays(os.getpid())).fault()
    assert found is not None and found.kind == "bug"
