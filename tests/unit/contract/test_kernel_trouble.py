# SPDX-License-Identifier: GPL-2.0-or-later
"""Texts as kernels print them: what is a finding, whose fault it is, and what only looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.contract.kernel_trouble import MARKS, Blame, all_trouble, find_trouble

CAPTURES = Path(__file__).parents[2] / "data"

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
    ("list", b"[   77.000000] list_add corruption. next->prev should be prev (ffff), but was 0. (next=ffff).\n"),
    ("lockup", b"[   60.000000] watchdog: Watchdog detected hard LOCKUP on cpu 0\n"),
    ("lockup", b"[   60.000000] BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 34s!\n"),
    ("rcu-stall", b"[  100.000000] INFO: rcu_tasks detected stalls on tasks:\n"),
    ("rcu-stall", b"[  100.000000] rcu: rcu_preempt kthread starved for 21004 jiffies! g7 f0x0 RCU_GP_WAIT_FQS(5)\n"),
    ("ubsan", b"[   41.000000] UBSAN: array-index-out-of-bounds in arch/x86/kvm/x86.c:13000:9\n"),
    ("kasan", b"[   41.000000] BUG: KFENCE: use-after-free read in kvm_check_async_pf_completion+0x5c/0x120\n"),
    (
        "warning",
        b"[   41.000000] WARNING: virt/kvm/async_pf.c:90 at kvm_flush_and_free+0x1/0x2, CPU#0: kworker/0:1/9\n",
    ),
]

MACHINE = [
    ("refused-out", b"[   41.000000] workload: OUT was refused though ioperm() had allowed it\n"),
    ("int3", b"[   26.058463] Oops: int3: 0000 [#1] SMP NOPTI\n"),
    ("oom", b"[   88.000000] qemu-system-x86 invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER), order=0\n"),
    ("oom", b"[   88.000000] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0\n"),
    ("oom", b"[   88.000000] Out of memory: Killed process 412 (qemu-system-x86) total-vm:912344kB\n"),
    ("oom", b"[   88.000000] Memory cgroup out of memory: Killed process 412 (qemu-system-x86) total-vm:912344kB\n"),
    ("io-error", b"[   88.000000] I/O error, dev vdb, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2\n"),
    ("io-error", b"[   88.000000] blk_update_request: I/O error, dev vdb, sector 2048 op 0x0:(READ) flags 0x0\n"),
    ("io-error", b"[   88.000000] critical medium error, dev vdb, sector 2048 op 0x0:(READ) flags 0x0\n"),
    ("io-error", b"[   88.000000] Buffer I/O error on dev dm-0, logical block 0, async page read\n"),
    ("io-error", b"[   88.000000] Read-error on swap-device (254:0:8)\n"),
    ("io-error", b"[   88.000000] Write-error on swap-device (254:0:8)\n"),
    ("io-error", b"[   88.000000] EXT4-fs error (device dm-0): ext4_lookup:1: inode #2: comm cat: bad entry\n"),
]


HARMLESS = [
    b"[    0.001544] AMD Zen1 DIV0 bug detected. Disable SMT for full protection.\n",
    b"[    0.009585] Speculative Return Stack Overflow: WARNING: See https://kernel.org/doc for mitigation options.\n",
    b'[    0.826206] PCI: Using host bridge windows from ACPI; if necessary, use "pci=nocrs" and report a bug\n',
    b"[    4.000000] apf-host: READY 6.1.0-56-cloud-amd64\n",
    b"Kernel panic - not syncing: printed by a program, without a time stamp\n",
    b"BUG: a test program says so\n",
    b"[    9.000000] traps: probe[77] general protection fault ip:401000 sp:7ffc error:0 in probe[401000+1000]\n",
    b"[    9.000000] EXT4-fs (dm-0): mounted filesystem without journal. Quota mode: none.\n",
    b"[    9.000000] Adding 262140k swap on /dev/dm-0.  Priority:-2 extents:1 across:262140k SS\n",
    b"",
]


TABLE = [*((k, Blame.KERNEL, x) for k, x in FINDINGS), *((k, Blame.MACHINE, x) for k, x in MACHINE)]


@pytest.mark.parametrize(("kind", "blame", "line"), TABLE, ids=[f"{n}-{k}" for n, (k, _, _) in enumerate(TABLE)])
def test_finding(kind: str, blame: Blame, line: bytes) -> None:
    text = b"[    0.000000] Linux version 6.1\r\n" + line + b"[  300.000000] more\n"
    found = find_trouble(text)
    assert found is not None
    assert (found.kind, found.blame) == (kind, blame)
    assert text[found.offset :].startswith(found.line.encode())
    assert found.line.encode() in line


@pytest.mark.parametrize("line", HARMLESS)
def test_harmless(line: bytes) -> None:
    assert find_trouble(b"[    0.000000] Linux version 6.1\n" + line) is None


def test_a_line_that_is_still_being_written_is_not_judged() -> None:
    text = b"[    1.0] Kernel panic - not syncing: sys"
    assert find_trouble(text) is None
    found = find_trouble(text + b"rq triggered crash\n")
    assert found is not None
    assert found.line == "Kernel panic - not syncing: sysrq triggered crash"


def test_the_first_finding_is_the_one_that_counts() -> None:
    text = FINDINGS[2][1] + FINDINGS[6][1] + FINDINGS[0][1]
    found = find_trouble(text)
    assert found is not None
    assert found.kind == "bug"
    assert find_trouble(text, found.offset + 1) is not None


STALE = (CAPTURES / "host-consoles/stale-breakpoint.txt").read_bytes()
"""The console of a 6.1 under QEMU 7.2: CPU 0 is for ever in the handler of a breakpoint in finish_task_switch."""


def test_a_stall_in_the_handler_of_a_breakpoint_is_the_emulators() -> None:
    found = find_trouble(STALE)
    assert found is not None and (found.kind, found.blame) == ("int3", Blame.MACHINE)
    assert found.line.startswith("rcu: INFO: rcu_sched detected stalls")
    told = all_trouble(STALE.decode().splitlines())
    assert told and {t.blame for t in told} == {Blame.MACHINE}


def test_a_stall_elsewhere_is_the_kernels() -> None:
    elsewhere = b"\n".join(line for line in STALE.split(b"\n") if b"int3" not in line)
    found = find_trouble(elsewhere)
    assert found is not None and (found.kind, found.blame) == ("rcu-stall", Blame.KERNEL)
    assert Blame.KERNEL in {t.blame for t in all_trouble(elsewhere.decode().splitlines())}


NAMING = [
    ("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:1:37]", "", (1,)),
    ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 2", "", (2,)),
    ("BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 34s!", "", (1,)),
    ("BUG: workqueue lockup - pool cpus=0-3 flags=0x4 nice=0 stuck for 34s!", "", ()),
    ("rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D 12-.... } 5300 jiffies", "", (1, 12)),
    ("rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { P412 } 5300 jiffies", "", ()),
    ("rcu: rcu_preempt kthread starved for 5250 jiffies! g1 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x0 ->cpu=1", "", (1,)),
    ("rcu: INFO: rcu_sched self-detected stall on CPU", "\t0-....: (5249 ticks this GP) idle=1", (0,)),
    ("rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", "\t1-...!: (0 ticks this GP) idle=1", (1,)),
    ("rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", "\t(detected by 0, t=5252 jiffies, g=1, q=2)", ()),
    ("INFO: task CPU 0/KVM:513 blocked for more than 180 seconds.", "", ()),
]


@pytest.mark.parametrize(("line", "behind", "cpus"), NAMING)
def test_which_processors_a_stall_names(line: str, behind: str, cpus: tuple[int, ...]) -> None:
    text = f"[   60.000000] {line}\r\n[   60.000001] rcu: {behind}\r\n[   60.000002] rcu: \t(t=5250 jiffies)\r\n"
    found = find_trouble(text.encode())
    assert found is not None and found.cpus == cpus
    assert all_trouble(text.splitlines())[0].cpus == cpus


def test_every_mark_has_a_line_here() -> None:
    assert {m.kind for m in MARKS} == {kind for kind, _, _ in TABLE}


def test_all_trouble_tells_one_finding_for_each_line() -> None:
    lines = [FINDINGS[0][1].decode().rstrip(), "[    1.0] all is well", MACHINE[3][1].decode().rstrip()]
    assert [t.kind for t in all_trouble(lines)] == ["panic", "oom"]


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("captures*/*/host/dmesg.txt")), ids=lambda p: p.parts[-3])
def test_the_logs_of_sound_captures_have_none(path: Path) -> None:
    assert all_trouble(path.read_text().splitlines()) == ()


@pytest.mark.parametrize(
    "line",
    [
        "I/O error, dev nbd0, sector 131144 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        "blk_update_request: I/O error, dev nbd3, sector 8 op 0x0:(READ) flags 0x0",
        "Buffer I/O error on dev nbd0, logical block 0, async page read",
        "Read-error on swap-device (43:0:131144)",
    ],
)
def test_errors_that_a_gated_device_answers_with_are_none(line: str) -> None:
    assert all_trouble([f"[   88.000000] {line}"]) == ()
