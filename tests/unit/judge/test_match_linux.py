# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest's report against the trace: made events, and two real captures of a guest that was swapped out."""

from __future__ import annotations

import json

import pytest

from harness.contract.host_stalls import FILE, HostStalls, Stall
from harness.contract.structure import to_json
from harness.errors import CaptureDamaged
from harness.judge.match_linux import interrupts_at_last_hyp
from harness.judge.verdict import judge_capture
from harness.model.events import Event, Kind
from harness.model.kernels import find_kernel
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.golden import recounted
from tests.unit.judge.packed import packed_capture

N61 = find_kernel("nowait-6.1")
RESULT = "WORKLOAD\nHYP 1\nEND 7\n"


def out(t: int, port: int = 0xE9) -> Event:
    return Event(
        Kind.EXIT, 0, t, text=f"kvm_exit: vcpu 0 reason io rip 0xffff info1 {port << 16 | 0x10:#018x} info2 0x0"
    )


def irq(t: int, vcpu: int = 0, vector: int = 0xF3) -> Event:
    return Event(Kind.VIRQ, vcpu, t, value=vector)


def test_the_last_row_is_read_between_the_line_before_it_and_its_own_first_byte() -> None:
    written = [out(10 * n) for n in range(len(RESULT))]  # WORKLOAD\n ends at 80, HYP begins at 90
    console = [out(85, port=0x3F8)]
    given = [irq(5), irq(79), irq(88), irq(91), irq(84, vector=0xEC), irq(50, vcpu=1), irq(86, vcpu=1)]
    events = sorted([*written, *console, *given], key=lambda e: e.t_ns)
    assert interrupts_at_last_hyp(events, RESULT, 1, injected=True) == ((2, 3),)
    assert interrupts_at_last_hyp(events, RESULT, 2, injected=True) == ((1, 3), (0, 2))
    text = "kvm_exit: reason EXIT_IOIO rip 0xffff info e90010 ffff"
    old = [Event(e.kind, 0, e.t_ns, text=text) if e in written else e for e in events]
    assert interrupts_at_last_hyp(old, RESULT, 1, injected=True) == ((2, 3),)


def test_a_trace_without_the_exits_proves_nothing() -> None:
    with pytest.raises(CaptureDamaged, match="result port"):
        interrupts_at_last_hyp([irq(5)], RESULT, 1, injected=True)


@pytest.mark.parametrize("name", ["enabled", "hidden"])
def test_a_guest_that_was_swapped_out_is_judged(name: str) -> None:
    files = packed_capture(name)
    verdict = judge_capture(files, N61)
    assert verdict.status is Status.PASS, verdict.reason
    wrong = files["guest/result.txt"].replace(b"pages 0 wrong", b"pages 1 wrong")
    assert judge_capture(files | {"guest/result.txt": wrong}, N61).status is Status.FAIL


def test_an_emulator_that_refuses_the_guests_out_is_told_with_what_to_do() -> None:
    files = packed_capture("enabled")
    line = b"[   41.000000] workload: OUT was refused though ioperm() had allowed it\n"
    verdict = judge_capture(files | {"guest/console.txt": files["guest/console.txt"] + line}, N61)
    assert verdict.status is Status.INCONCLUSIVE
    assert "OUT was refused" in verdict.reason and "sync and nmi; leave these words out" in verdict.reason


def test_a_lost_interrupt_of_a_linux_guest_is_named() -> None:
    files = packed_capture("enabled")
    line = next(row for row in files["guest/result.txt"].splitlines()[3:] if row.startswith(b"HYP"))
    fewer = b"HYP %d" % (int(line.split()[1]) - 5)
    verdict = judge_capture(files | {"guest/result.txt": files["guest/result.txt"].replace(line, fewer)}, N61)
    assert verdict.status is Status.FAIL and verdict.findings[0].rule == "D16"


TROUBLE = [
    "WARNING: CPU: 0 PID: 1 at arch/x86/kernel/kvm.c:200 kvm_async_pf_task_wake+0x1/0x2",
    "BUG: unable to handle page fault for address: ffffc90000a3bff8",
    "Oops: 0000 [#1] PREEMPT SMP NOPTI",
    "kernel BUG at arch/x86/kernel/kvm.c:200!",
]


@pytest.mark.parametrize("line", TROUBLE)
def test_a_guest_whose_kernel_complains_and_reports_all_the_same_has_not_passed(line: str) -> None:
    """Its console is the only witness of what a stray token does to a task that is not the workload."""
    files = packed_capture("enabled")
    assert judge_capture(files, N61).status is Status.PASS
    files["guest/console.txt"] += f"[    7.000000] {line}\r\n".encode()
    verdict = judge_capture(files, N61)
    assert verdict.status is Status.FAIL and verdict.findings[0].rule == "D28"
    assert verdict.findings[0].message == f"the guest says: {line}"


def test_a_stall_of_a_guest_counts_where_its_host_was_let_run() -> None:
    files = packed_capture("enabled")
    line = "INFO: task touch:12 blocked for more than 120 seconds."
    files["guest/console.txt"] += f"[  177.000000] {line}\r\n".encode()
    assert judge_capture(files, N61).status is Status.INCONCLUSIVE  # by a runner that did not look
    nonce = json.loads(files["plan.json"])["nonce"]
    told = HostStalls((), (Stall("177.000000", 120.0, 12.0, worst=True),), nonce=nonce)
    verdict = judge_capture({**files, FILE: to_json(told).encode()}, N61)
    assert verdict.status is Status.FAIL and line in verdict.reason
    told = HostStalls((), (Stall("177.000000", 120.0, 99.0, worst=True),), nonce=nonce)
    verdict = judge_capture({**files, FILE: to_json(told).encode()}, N61)
    assert verdict.status is Status.PASS and any(line in note for note in verdict.notes)


def test_what_a_guest_says_of_its_machine_concludes_nothing() -> None:
    files = packed_capture("enabled")
    files["guest/console.txt"] += b"[    7.000000] Out of memory: Killed process 9 (workload) total-vm:912344kB\r\n"
    assert judge_capture(files, N61).status is Status.INCONCLUSIVE


def test_a_page_fault_in_an_nmi_before_the_flags_of_a_token_are_read_is_the_guests_own_fault() -> None:
    """noio-6.1: the NMI has interrupted the first instruction of the handler of token 0x90000 (asm_exc_page_fault+0x0)
    and reads a user's stack that is not there; __kvm_handle_async_pf takes the flags for its own."""
    files = packed_capture("linux-fault-in-an-nmi")
    model = model_of(files, "noio")
    verdict = judge_capture(files, model)
    assert verdict.status is Status.INCONCLUSIVE
    assert "a known fault of the guest's own kernel" in verdict.reason and "interrupt disabled region" in verdict.reason

    console = files["guest/console.txt"]
    before, nmi, after = console.partition(b"end_repeat_nmi")
    elsewhere = before + nmi + after.replace(b"RIP: 0010:asm_exc_page_fault+0x0", b"RIP: 0010:default_idle+0x9", 1)
    verdict = judge_capture({**files, "guest/console.txt": elsewhere}, model)
    assert verdict.status is Status.FAIL and verdict.reason.startswith("D28"), verdict.reason


def test_a_page_fault_in_an_nmi_is_the_guests_own_where_a_sysrq_hid_the_dump_of_the_panic() -> None:
    """Explored (Y12) on noio-6.1: the sysrq that sent the NMI put console_loglevel back behind panic's console_verbose,
    so that of the panic only its first line was shown; the NMI's own dump has the place that was interrupted."""
    files = packed_capture("linux-fault-in-an-nmi")
    model = model_of(files, "noio")
    before, panic, after = files["guest/console.txt"].partition(b"interrupt disabled region\r\n")
    end = after[after.index(b"[    2.237995] Kernel Offset") :]
    hidden = before + panic + end
    verdict = judge_capture({**files, "guest/console.txt": hidden}, model)
    assert verdict.status is Status.INCONCLUSIVE
    assert "a known fault of the guest's own kernel" in verdict.reason

    elsewhere = hidden.replace(b"RIP: 0010:asm_exc_page_fault+0x0", b"RIP: 0010:default_idle+0x9")
    unknown = hidden.replace(b"NMI backtrace for cpu 0", b"something else")
    for console in (elsewhere, unknown):
        verdict = judge_capture({**files, "guest/console.txt": console}, model)
        assert verdict.status is Status.FAIL and verdict.reason.startswith("D28"), verdict.reason


def test_what_a_guest_that_panics_by_its_own_fault_has_seen_of_its_host_counts() -> None:
    files = packed_capture("linux-fault-in-an-nmi")
    lines = files["trace/events.txt"].decode().splitlines(keepends=True)
    kept = [line for line in lines if "kvm_async_pf_ready: token 0x5000 " not in line]
    assert len(kept) == len(lines) - 1
    kept, stats = recounted(kept, files["trace/stats.json"])
    changed = {**files, "trace/events.txt": "".join(kept).encode(), "trace/stats.json": stats}
    verdict = judge_capture(changed, model_of(files, "noio"))
    assert verdict.status is Status.FAIL, verdict.reason
