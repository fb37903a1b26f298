# SPDX-License-Identifier: GPL-2.0-or-later
"""Console text for people."""

from __future__ import annotations

from pathlib import Path

from harness.contract.kernel_trouble import DUMP_BYTES, Blame
from harness.hosts.deadline import Deadline
from harness.hosts.virtual.console import tail
from harness.hosts.virtual.console_file import ConsoleWatch


def test_tail_is_safe_to_print() -> None:
    assert tail(b"one\r\n\x1b[2J\x1b[31mtwo\x07\x00\r\nthree \xff\n", 2) == "two\nthree �"


def test_a_stall_is_told_when_its_dump_is_there(tmp_path: Path) -> None:
    """Its first line does not say whose fault it is."""
    console = tmp_path / "console.txt"
    watch = ConsoleWatch(console)
    first = b"[   25.6] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:\n"
    dump = b"[   25.7] RIP: 0010:asm_exc_int3+0x0/0x40\n"
    console.write_bytes(first)
    assert watch.fault() is None
    console.write_bytes(first + dump)
    deadline = Deadline.after(5.0, "the stall to be told")
    while (found := watch.fault()) is None:
        deadline.check()
    assert (found.kind, found.blame) == ("int3", Blame.MACHINE)


def test_a_stall_is_told_though_the_console_never_ends(tmp_path: Path) -> None:
    console = tmp_path / "console.txt"
    first = b"[   25.6] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:\n"
    console.write_bytes(first + b"[   25.7] RIP: 0010:schedule+0x1/0x2\n" * (DUMP_BYTES // 16))
    found = ConsoleWatch(console).fault()
    assert found is not None and (found.kind, found.blame) == ("rcu-stall", Blame.KERNEL)


def test_any_other_finding_is_told_at_once(tmp_path: Path) -> None:
    console = tmp_path / "console.txt"
    console.write_bytes(b"[   25.6] kernel BUG at mm/slub.c:1!\n")
    found = ConsoleWatch(console).fault()
    assert found is not None and found.kind == "bug"
