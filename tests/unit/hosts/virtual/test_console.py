# SPDX-License-Identifier: GPL-2.0-or-later
"""Texts as kernels print them: what is a finding, and what only looks like one."""

from __future__ import annotations

import pytest

from harness.hosts.virtual.console import find_fault, tail

FINDINGS = [
    ("panic", b"[   12.345678] Kernel panic - not syncing: sysrq triggered crash\r\n"),
    ("panic", b"[    1.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n"),
    ("bug", b"[  101.000001] BUG: kernel NULL pointer dereference, address: 0000000000000010\n"),
    ("bug", b"[  101.000001][ T1234] BUG: unable to handle page fault for address: ffffc90000a3bff8\n"),
    ("bug", b"[   55.500000] kernel BUG at arch/x86/kvm/x86.c:13200!\n"),
    ("bug", b"[   55.500000] BUG: Bad page state in process qemu-system-x86  pfn:7fbd3\n"),
    ("bug", b"[   55.500000] BUG: scheduling while atomic: kworker/1:2/77/0x00000002\n"),
    ("oops", b"[  101.000002] Oops: 0002 [#1] PREEMPT SMP NOPTI\n"),
    ("oops", b"[    9.999999] general protection fault, probably for non-canonical address 0xdead000000000108: 0000\n"),
    ("oops", b"[    9.999999] double fault: 0000 [#1] PREEMPT SMP\n"),
    ("warning", b"[   88.123456] WARNING: CPU: 1 PID: 412 at arch/x86/kvm/x86.c:3333 kvm_write_guest_offset_cached\n"),
    ("hung-task", b"[  242.000000] INFO: task qemu-system-x86:512 blocked for more than 120 seconds.\n"),
    ("hung-task", b"[  242.000000] INFO: task CPU 0/KVM:513 blocked for more than 180 seconds.\n"),
    ("lockup", b"[   60.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:1:37]\n"),
    ("lockup", b"[   60.000000] NMI watchdog: Watchdog detected hard LOCKUP on cpu 0\n"),
    ("rcu-stall", b"[  100.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\n"),
    ("rcu-stall", b"[  100.000000] rcu: INFO: rcu_sched self-detected stall on CPU\n"),
    ("rcu-stall", b"[  100.000000] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D }\n"),
    ("kasan", b"[   33.000000] BUG: KASAN: use-after-free in async_pf_execute+0x9c/0x210\n"),
    ("lockdep", b"[   20.000000] WARNING: possible circular locking dependency detected\n"),
    ("list", b"[   77.000000] list_del corruption. prev->next should be ffff888003a3c010, but was dead000000000122\n"),
]

HARMLESS = [
    b"[    0.001544] AMD Zen1 DIV0 bug detected. Disable SMT for full protection.\n",
    b"[    0.009585] Speculative Return Stack Overflow: WARNING: See https://kernel.org/doc for mitigation options.\n",
    b'[    0.826206] PCI: Using host bridge windows from ACPI; if necessary, use "pci=nocrs" and report a bug\n',
    b"[    4.000000] apf-host: READY 6.1.0-56-cloud-amd64\n",
    b"Kernel panic - not syncing: printed by a program, without a time stamp\n",
    b"BUG: a test program says so\n",
    b"",
]


@pytest.mark.parametrize(("kind", "line"), FINDINGS, ids=[f"{n}-{k}" for n, (k, _) in enumerate(FINDINGS)])
def test_finding(kind: str, line: bytes) -> None:
    text = b"[    0.000000] Linux version 6.1\r\n" + line + b"[  300.000000] more\n"
    found = find_fault(text)
    assert found is not None
    assert found.kind == kind
    assert text[found.offset :].startswith(found.line.encode())
    assert found.line.encode() in line


@pytest.mark.parametrize("line", HARMLESS)
def test_harmless(line: bytes) -> None:
    assert find_fault(b"[    0.000000] Linux version 6.1\n" + line) is None


def test_a_line_that_is_still_being_written_is_not_judged() -> None:
    text = b"[    1.0] Kernel panic - not syncing: sys"
    assert find_fault(text) is None
    found = find_fault(text + b"rq triggered crash\n")
    assert found is not None
    assert found.line == "Kernel panic - not syncing: sysrq triggered crash"


def test_the_first_finding_is_the_one_that_counts() -> None:
    text = FINDINGS[2][1] + FINDINGS[6][1] + FINDINGS[0][1]
    found = find_fault(text)
    assert found is not None
    assert found.kind == "bug"
    assert find_fault(text, found.offset + 1) is not None


def test_tail_is_safe_to_print() -> None:
    assert tail(b"one\r\n\x1b[2J\x1b[31mtwo\x07\x00\r\nthree \xff\n", 2) == "two\nthree �"
