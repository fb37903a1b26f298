# SPDX-License-Identifier: GPL-2.0-or-later
"""Real captures of an L2 that gets tokens: told, left behind (F2), given to L2 (F4); and with lines of them changed."""

from __future__ import annotations

import json
import re
import struct

import pytest

from harness.contract.probe_abi import PAGE_SIZE, RECORD_CODEC, Record, SvmExit
from harness.judge.verdict import judge_capture
from harness.model.kernels import KernelModel, find_kernel
from harness.model.known_faults import with_fixes, without_fix
from harness.model.outcomes import Outcome
from harness.status import Status
from tests.unit.judge.packed import packed_capture

N510, N61, N612 = (find_kernel(f"nowait-{series}") for series in ("5.10", "6.1", "6.12"))
TRACE, LOG = "trace/events.txt", "guest/log.bin"


def rules(files: dict[str, bytes], kernel: KernelModel) -> set[str]:
    verdict = judge_capture(files, kernel)
    assert verdict.status is Status.FAIL, verdict.reason
    return {f.rule for f in verdict.findings}


def with_lines(files: dict[str, bytes], pattern: str, to: str) -> dict[str, bytes]:
    """The trace with the first line that has the pattern changed."""
    lines = files[TRACE].decode().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if re.search(pattern, line))
    lines[at] = re.sub(pattern, to, lines[at])
    return files | {TRACE: "".join(lines).encode()}


def with_flags(files: dict[str, bytes], kind: Record, code: int = -1) -> dict[str, bytes]:
    """The guest's log with flags = 1 in the first L2_WORDS behind an exit of that code, or in the first PAGE_FAULT."""
    log, exit_code = bytearray(files[LOG]), 0
    for at in range(PAGE_SIZE, len(log), RECORD_CODEC.size):
        _, number, _, _, a, _ = RECORD_CODEC.unpack_from(log, at)
        if number == Record.L2_EXIT:
            exit_code = a & 0xFFFFFFFF
        if number == kind and (code < 0 or exit_code == code):
            struct.pack_into("<Q", log, at + (24 if kind is Record.PAGE_FAULT else 16), 1)
            return files | {LOG: bytes(log)}
    raise AssertionError("no such record")


def test_a_token_of_an_l2_reaches_l1() -> None:
    verdict = judge_capture(packed_capture("nested-told"), N612)
    assert verdict.status is Status.PASS, verdict.reason
    assert [row.seen[0] for row in verdict.items] == [Outcome.TOKEN] * 3 + [Outcome.HALT]
    assert not verdict.hints, "nothing maps a page of L2 early while L1 runs"


@pytest.mark.parametrize(
    ("name", "kernel", "word", "outcome"),
    [
        ("nested-left-behind", N61, "FINDING F2", Outcome.LEFT),
        ("nested-into-l2", N510, "FINDING F4", Outcome.TO_L2),
    ],
)
def test_a_known_finding_is_told_by_its_name(name: str, kernel: KernelModel, word: str, outcome: Outcome) -> None:
    files = packed_capture(name)
    verdict = judge_capture(files, kernel)
    assert verdict.word == word and verdict.findings == ()
    assert [row.seen[0] for row in verdict.items] == [outcome] * 3 + [Outcome.HALT]
    fixed = judge_capture(files, with_fixes(kernel, [word[-2:]]))
    assert fixed.status is Status.FAIL and fixed.reason.startswith(f"this is finding {word[-2:]}")


def test_a_kernel_that_is_not_known_to_be_mended() -> None:
    verdict = judge_capture(packed_capture("nested-told"), without_fix(N612, "F2"))
    assert verdict.status is Status.FAIL and verdict.reason.startswith("finding F2 is not reproduced any more")


def test_a_fault_without_a_call_may_have_looked_until_the_ready_event() -> None:
    """A vCPU is preempted behind kvm_page_fault: the worker maps the page before get_user_page_fast_only looks."""
    verdict = judge_capture(packed_capture("nested-mapped-before-ready"), N61)
    assert verdict.word == "FINDING F2" and verdict.findings == ()


def test_a_fault_maps_its_page_while_the_worker_asks_the_file_system() -> None:
    """do_shared_fault has unlocked the page for page_mkwrite: another maps it for reading, and finish_fault refuses."""
    verdict = judge_capture(packed_capture("nested-mapped-under-mkwrite"), N61)
    assert verdict.word == "FINDING F2" and verdict.findings == ()


def test_a_tick_at_the_right_moment_saves_a_token_from_f2() -> None:
    verdict = judge_capture(packed_capture("nested-ticks"), N61)
    assert verdict.word == "FINDING F2" and verdict.findings == ()
    first = [row.seen[0] for row in verdict.items]
    assert first.count(Outcome.TOKEN) > 5 and first.count(Outcome.LEFT) > 2, "both, in one run"


@pytest.mark.long
def test_a_sleep_of_qemu_in_a_stop_is_no_halt() -> None:
    """S147: KVM_RUN returns between the page that is missing and L2's running on."""
    files = packed_capture("nested-left-behind")
    lines, stats = files[TRACE].decode().splitlines(keepends=True), json.loads(files["trace/stats.json"])
    at = next(n for n, line in enumerate(lines) if "kvm_async_pf_not_present: " in line)
    away = next(n for n in range(at, len(lines)) if "sched_switch: prev_comm=CPU 0/KVM" in lines[n])
    head = lines[at].split("kvm_async_pf_not_present")[0]
    lines[away] = lines[away].replace("prev_state=R ", "prev_state=S ")
    lines.insert(at + 1, head + "kvm_userspace_exit: reason restart (4)\n")
    stats["cpus"]["0"]["entries"] += 1
    text = "".join(lines).replace("279/279", "280/280", 1)  # events, said by the header
    changed = {TRACE: text.encode(), "trace/stats.json": json.dumps(stats).encode()}
    verdict = judge_capture(files | changed, N61)
    assert [f.rule for f in verdict.findings] == ["unexplained"], "but for the stop, which this plan has not"
    assert verdict.items[0].seen[0] is Outcome.LEFT


NO_EXIT = "kvm_nested_intr_vmexit: rip: 0x000000000010222c"
INTR_EXIT = r"kvm_nested_vmexit_inject: reason: interrupt .*"
PF_EXIT = r"kvm_nested_vmexit_inject: reason: PF excp .*"


@pytest.mark.parametrize(
    ("pattern", "to", "rule"),
    [
        (PF_EXIT, NO_EXIT, "D45"),
        ("ext_inf2: 0x0000000000001000", "ext_inf2: 0x0000000000002000", "D45"),
        (PF_EXIT, "kvm_inj_exception: #PF (0x0)", "D47"),
    ],
)
def test_the_rule_names_what_became_of_a_token(pattern: str, to: str, rule: str) -> None:
    assert rule in rules(with_lines(packed_capture("nested-told"), pattern, to), N612)


@pytest.mark.parametrize(("kind", "code"), [(Record.L2_WORDS, SvmExit.VMMCALL), (Record.PAGE_FAULT, -1)])
def test_a_flag_that_no_token_explains(kind: Record, code: int) -> None:
    found = rules(with_flags(packed_capture("nested-told"), kind, code), N612)
    assert found == {"D46"}


@pytest.mark.long
def test_a_flag_at_the_end_belongs_to_a_token_that_was_not_told() -> None:
    def changed(name: str, flags: int) -> dict[str, bytes]:
        files = packed_capture(name)
        after = json.loads(files["after.json"])
        assert after["shared_flags"]["0"] == 1 - flags
        after["shared_flags"]["0"] = flags
        return files | {"after.json": json.dumps(after).encode()}

    assert rules(changed("nested-told", 1), N612) == {"D39"}
    assert rules(changed("nested-left-behind", 0), N61) == {"D46"}


@pytest.mark.long
def test_a_ready_interrupt_that_does_not_end_the_l2() -> None:
    files = with_lines(packed_capture("nested-left-behind"), INTR_EXIT, NO_EXIT)
    assert "D48" in rules(files, N61)


@pytest.mark.long
def test_a_linux_guest_that_runs_an_l2_panics_or_lives() -> None:
    """S146 on 6.1.192, and on the same kernel with kernels/patches/fixes/vmexit-event."""
    panicked, lives = packed_capture("nested-linux-panics"), packed_capture("nested-linux-lives")
    verdict = judge_capture(panicked, N61)
    assert verdict.word == "FINDING F2" and verdict.findings == ()
    fixed = with_fixes(N61, ["F2"])
    assert judge_capture(lives, fixed).status is Status.PASS
    unaware = judge_capture(lives, N61)
    assert unaware.status is Status.FAIL and unaware.reason.startswith("finding F2 is not reproduced any more")
    assert {"D28", "D45"} <= rules(panicked, fixed)
    console = panicked["guest/console.txt"].replace(b"in kernel mode", b"in no mode")
    assert rules(panicked | {"guest/console.txt": console}, N61) == {"D28"}


def test_the_log_must_be_one_that_the_guest_can_write() -> None:
    files = packed_capture("nested-told")
    log = bytearray(files[LOG])
    kinds = [RECORD_CODEC.unpack_from(log, at)[1] for at in range(PAGE_SIZE, len(log), RECORD_CODEC.size)]
    at = PAGE_SIZE + RECORD_CODEC.size * kinds.index(Record.L2_EXIT)
    struct.pack_into("<Q", log, at + 16, SvmExit.INTR)
    verdict = judge_capture(files | {LOG: bytes(log)}, N612)
    assert verdict.status is Status.INCONCLUSIVE and "no exit of the L2 has brought" in verdict.reason


def test_a_page_may_be_mapped_by_its_vcpu_while_the_worker_is_held_up_in_its_call() -> None:
    """S136 beside three other hosts: a kworker was preempted in handle_mm_fault before it tried the page's lock, and
    L2's next fault mapped the page from the cache.  Two of 24 pages, among 56 open choices."""
    verdict = judge_capture(packed_capture("nested-mapped-while-held-up"), N61)
    assert verdict.word == "FINDING F2" and verdict.findings == ()
    assert [row.index for row in verdict.items if row.seen[-1] is Outcome.MINOR] == [18, 23]


def test_a_token_is_left_behind_where_the_area_moves() -> None:
    """EN is written in between, so that nobody knows whether the area could be written at each NP."""
    verdict = judge_capture(packed_capture("nested-area-moves"), N61)
    assert verdict.word == "FINDING F2" and verdict.findings == ()


def test_interrupt_0_that_an_l2_is_given_is_the_finding() -> None:
    """S196 on 6.1.192: the timer ticks while L2 runs, and L1 has IF=0."""
    files = packed_capture("nested-window")
    assert judge_capture(files, N61).word == "FINDING F7"
    mended = judge_capture(files, with_fixes(N61, ["F7"]))
    assert mended.status is Status.FAIL and mended.reason.startswith("this is finding F7")


def test_an_l2_that_executes_nothing_is_the_finding() -> None:
    """S196 on 5.10.262: the timer ticks between VMRUN and L2's first instruction (the trace is cut to its begin)."""
    files = packed_capture("explored-l2-executes-nothing")
    verdict = judge_capture(files, N510)
    assert verdict.status is Status.INCONCLUSIVE and "predicted: F8" in verdict.reason
    assert judge_capture(files, with_fixes(N510, ["F8"])).status is Status.FAIL


def test_an_l2_that_executes_nothing_is_the_finding_where_no_event_is_lost() -> None:
    files = packed_capture("explored-l2-executes-nothing")
    stats = json.loads(files["trace/stats.json"])
    lines = sum(not line.startswith(b"#") for line in files[TRACE].splitlines())
    for cpu in stats["cpus"].values():
        cpu |= {"entries": 0, "left_out": 0, "dropped_events": 0}
    stats["cpus"]["2"]["entries"] = lines
    trace = re.sub(rb"(?<=written: )\d+/\d+", b"%d/%d" % (lines, lines), files[TRACE])
    verdict = judge_capture(files | {TRACE: trace, "trace/stats.json": json.dumps(stats).encode()}, N510)
    assert verdict.word == "FINDING F8", verdict.reason
