# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host's log, and that of a Linux guest, say of the kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract.capture import FORMAT, MESSAGES_LOST, WITHOUT_MARKS, RunEnd, log_marks
from harness.contract.host_stalls import FILE, HostStalls, Stall, guest_stalls_in, stalls_in
from harness.contract.kernel_trouble import GUEST_WAITS_S, WAITS_S, Blame
from harness.contract.structure import to_json
from harness.contract.words import EndStatus
from harness.errors import CaptureDamaged
from harness.evidence.host_log import GUEST_LOG, LOG, WeighedLog, read_guest_log, read_host_log

WARN = "WARNING: CPU: 0 PID: 1 at virt/kvm/async_pf.c:90"
END = RunEnd(WITHOUT_MARKS, 1, EndStatus.DONE, "", True)
LINES = {
    "rcu-stall": "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D } 5300 jiffies",
    "lockup": "watchdog: BUG: soft lockup - CPU#0 stuck for 68s! [qemu:1]",
    "hung-task": "INFO: task qemu:412 blocked for more than 180 seconds.",
}


def log(line: str) -> bytes:
    return f"[   12.000000] {line}\n[   13.000000] {WARN}\n".encode()


def with_stall(line: str, waited_s: float, of_s: float) -> dict[str, bytes]:
    return {LOG: log(line), FILE: to_json(HostStalls((Stall("12.000000", of_s, waited_s),), nonce=1)).encode()}


@pytest.mark.parametrize(("kind", "line"), LINES.items())
def test_a_stall_is_the_kernels_when_the_host_could_run(kind: str, line: str) -> None:
    most = WAITS_S[kind]
    files = with_stall(line, most / 2, most)
    assert read_host_log(files, END).against_the_kernel == (line, WARN) and read_host_log(files, END).starved == ()
    files = with_stall(line, most / 2 + 0.1, most)
    assert read_host_log(files, END).against_the_kernel == (WARN,)
    (said,) = read_host_log(files, END).starved
    assert line in said and f"in the {most:.0f} s before it" in said


@pytest.mark.parametrize("line", LINES.values())
def test_a_stall_of_which_nothing_is_known_is_not_the_kernels(line: str) -> None:
    for files in ({LOG: log(line)}, {LOG: log(line), FILE: to_json(HostStalls((), nonce=1)).encode()}):
        found, warned = read_host_log(files, END).trouble
        assert found.blame is Blame.MACHINE and "not recorded" in found.line
        assert warned.blame is Blame.KERNEL and read_host_log(files, END).against_the_kernel == (WARN,)


@pytest.mark.parametrize("line", LINES.values())
def test_a_machine_of_its_own_always_can(line: str) -> None:
    stalls = HostStalls(tuple(stalls_in(log(line))), nonce=1)
    assert [s.stamp for s in stalls.stalls] == ["12.000000"]
    assert read_host_log({LOG: log(line), FILE: to_json(stalls).encode()}, END).against_the_kernel == (line, WARN)


def test_no_log_says_nothing() -> None:
    assert read_host_log({}, END) == WeighedLog()


@pytest.mark.parametrize("told", [b"{", b'{"nonce": null, "stalls": []}', b'{"nonce": 2, "stalls": []}'])
def test_a_record_that_is_broken_or_of_another_run_is_damage(told: bytes) -> None:
    with pytest.raises(CaptureDamaged, match=r"host/stalls\.json"):
        read_host_log({LOG: log(WARN), FILE: told}, END)


def guest_with(line: str, stall: Stall | None) -> dict[str, bytes]:
    told = HostStalls((), None if stall is None else (stall,), nonce=1)
    return {GUEST_LOG: log(line), FILE: to_json(told).encode()}


@pytest.mark.parametrize(("kind", "line"), LINES.items())
def test_a_stall_of_a_guest_is_weighed_as_its_hosts(kind: str, line: str) -> None:
    """By the seconds in which the host was let run least: nobody knows when the guest said it."""
    most = GUEST_WAITS_S[kind]
    let_run = guest_with(line, Stall("12.000000", most, most, cpus=2, worst=True))
    assert read_guest_log(let_run, 1).against_the_kernel == (line, WARN) and read_guest_log(let_run, 1).starved == ()
    starved = guest_with(line, Stall("12.000000", most, most + 0.1, cpus=2, worst=True))
    assert read_guest_log(starved, 1).against_the_kernel == (WARN,)
    (said,) = read_guest_log(starved, 1).starved
    assert said.startswith(f"the guest says: {line}") and f"in the worst {most:.0f} s of the run" in said
    found, _ = read_guest_log(guest_with(line, None), 1).trouble
    assert found.blame is Blame.MACHINE and "not recorded" in found.line
    own = HostStalls((), guest_stalls_in(log(line)), nonce=1)
    files = {GUEST_LOG: log(line), FILE: to_json(own).encode()}
    assert read_guest_log(files, 1).against_the_kernel == (line, WARN) and read_host_log(files, END) == WeighedLog()


BEGIN, AT_END = (f"[    1.000000] {mark}\n" for mark in log_marks(1))


def test_since_format_5_a_log_is_of_its_run_and_whole() -> None:
    end = replace(END, format=FORMAT)
    whole = f"[    0.900000] nbd0: detected\n{BEGIN}[   13.000000] {WARN}\n{AT_END}"
    assert read_host_log({LOG: whole.encode()}, end).against_the_kernel == (WARN,)
    other = whole.replace(BEGIN, f"[    1.000000] {log_marks(2)[0]}\n")
    cut = whole[: len(whole) // 2]
    hole = whole.replace(AT_END, f"{MESSAGES_LOST}\n{AT_END}")
    for text in ("", cut, whole[len(cut) :], hole, AT_END + BEGIN, whole + whole, BEGIN, AT_END, other):
        with pytest.raises(CaptureDamaged, match=r"host/dmesg\.txt"):
            read_host_log({LOG: text.encode()}, end)
        assert read_host_log({LOG: text.encode()}, END)
    with pytest.raises(CaptureDamaged, match=r"host/dmesg\.txt"):
        read_host_log({}, end)
