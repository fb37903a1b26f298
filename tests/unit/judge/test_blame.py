# SPDX-License-Identifier: GPL-2.0-or-later
"""Causes come before their consequences, and a guest that is gone is judged by what it left."""

from __future__ import annotations

import dataclasses
import json
import struct

import pytest

from harness.contract.capture import FinalState
from harness.contract.probe_abi import LOG_FULL, LOG_RECORDS, Record
from harness.contract.words import EndStatus
from harness.errors import ModelError
from harness.evidence.decode import decode
from harness.evidence.guestlog import GuestRecord
from harness.judge import verdict as verdict_module
from harness.judge.blame import MAX_ALIKE, bounded, in_order, log_is_full, neither_sleeps_nor_enters, panics, stopped
from harness.judge.verdict import judge_capture
from harness.judge.verdict_types import Finding
from harness.model.events import Event, Kind
from harness.model.kernels import find_kernel
from harness.prediction import predict
from harness.status import Status
from tests.unit.judge.golden import Files, edit_trace, load
from tests.unit.judge.packed import packed_capture
from tests.unit.judge.test_verdict import change_json, drop, model


def test_the_cause_stands_before_its_consequences() -> None:
    told = (
        Finding("stopped", "never ran again", line=90),
        Finding("D15", "no interrupt", line=40),
        Finding("D03", "token", line=50),
        Finding("D16", "counted"),
        Finding("D05", "owed", line=10, consequence=True),
        Finding("item", "never ended", 0, 20, consequence=True),
        Finding("total", "RDY"),
    )
    assert in_order(reversed(told)) == told


def test_findings_of_one_kind_are_bounded_and_those_left_out_are_counted() -> None:
    many = [Finding("D24", "enters", line=n) for n in range(MAX_ALIKE + 7)]
    listed, left_out = bounded([*many, Finding("item", "spins")])
    assert listed == (*many[:MAX_ALIKE], Finding("item", "spins"))
    assert left_out == ("D24: 7 findings more",)
    assert bounded(listed) == (listed, ())


def ended(files: Files, status: str, reason: str = "why") -> Files:
    files = {**files, "guest/log.bin": unfinished(files["guest/log.bin"])}
    return change_json(files, "end.json", lambda r: r.update(status=status, reason=reason))


def unfinished(log: bytes) -> bytes:
    """Without DONE, state RUNNING, no end mark; of a guest with one vCPU."""
    control = bytearray(log[:4096])
    (count,) = struct.unpack_from("<I", control, 64)
    struct.pack_into("<I", control, 16, 2)
    struct.pack_into("<Q", control, 32, 0)
    struct.pack_into("<I", control, 64, count - 1)
    return bytes(control) + log[4096:-32]


def test_a_guest_that_the_kernel_killed_keeps_its_findings_without_its_log() -> None:
    files = edit_trace(ended(load("S29"), "qemu-died"), drop("kvm_async_pf_ready: token 0x1000"))
    del files["guest/log.bin"]
    verdict = judge_capture(files, model())
    assert verdict.status is Status.FAIL and len(verdict.findings) > 1
    assert verdict.findings[0].rule.startswith("D") and any("QEMU ended" in f.message for f in verdict.findings)


def test_a_guest_that_shut_down_is_told_by_its_exit() -> None:
    """The last exit made one with which S155 ended on an emulated host."""

    def shut_down(lines: list[str]) -> list[str]:
        last = max(n for n, line in enumerate(lines) if "kvm_exit" in line)
        head = lines[last].split("reason")[0]
        return [
            *lines[:last],
            f"{head}reason shutdown rip 0x102e11 info1 0x0 info2 0x0 intr_info 0x80000b0e error_code 0",
        ]

    verdict = judge_capture(edit_trace(ended(load("S29"), "qemu-died"), shut_down), model())
    assert verdict.status is Status.FAIL
    told = next(f for f in verdict.findings if f.rule == "ending")
    assert told.message.startswith("vCPU 0 shut down at rip 0x102e11, vector 0xe could not be delivered: QEMU ended")
    assert told.line and not told.consequence


@pytest.mark.parametrize("name", ["guest/log.bin", "trace/stats.json"])
def test_a_deadline_is_called_a_deadline(name: str) -> None:
    files = ended(load("S29"), "guest-timeout", "60 s")
    files[name] = files[name][: len(files[name]) // 2]
    verdict = judge_capture(files, model())
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.reason.startswith("the guest's program did not end within its deadline (60 s)")


def test_a_plan_that_the_model_cannot_follow_does_not_hide_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Following a timer of 1 us for a whole recording takes minutes, so that the model is made to give up at once."""

    def give_up(*_: object) -> None:
        raise ModelError("more than 50000 events in the first 70 ms", hint="a timer?")

    monkeypatch.setattr(verdict_module, "_judge_decoded", give_up)
    with pytest.raises(ModelError) as caught:
        judge_capture(ended(load("S29"), "guest-timeout", "60 s"), model())
    assert caught.value.message == (
        "the guest's program did not end within its deadline (60 s), and the model cannot follow it:"
        " more than 50000 events in the first 70 ms"
    )
    with pytest.raises(ModelError, match=r"^more than"):
        judge_capture(load("S29"), model())


def test_an_item_that_did_not_end_does_not_hide_the_rule_behind_it() -> None:
    files = edit_trace(ended(load("S29"), "guest-timeout"), drop("kvm_apic_accept_irq: .*vec 243"))
    verdict = judge_capture(files, model())
    assert verdict.findings[0].rule in ("D15", "D19") and verdict.findings[-1].rule == "ending"


def test_a_guest_whose_log_is_full_proves_nothing_but_a_broken_rule() -> None:
    """A timer of 1 ms on a slow machine: the probe guest has no room for its ticks, and panics."""
    evidence = decode(load("S29"))
    assert evidence.guest is not None
    room = LOG_RECORDS - len(evidence.guest.vcpus[0])
    ticks = [GuestRecord(Record.IRQ, 9, 0, 0, 0x20, 0)] * room
    full = dataclasses.replace(
        evidence,
        guest=dataclasses.replace(evidence.guest, vcpus=((*evidence.guest.vcpus[0], *ticks),)),
        end=dataclasses.replace(evidence.end, status=EndStatus.GUEST_PANIC, reason="after 8192 records"),
    )
    broken = Finding("D15", "no interrupt"), Finding("unexplained", "an exit for the console", about="USER_EXIT")
    prediction = predict(evidence.plan, model())
    assert log_is_full(full, prediction)
    assert not log_is_full(dataclasses.replace(full, end=evidence.end), prediction)
    said = verdict_module._status(full, model(), prediction, [broken[1]], {"PF": 2})
    assert said[0] is Status.INCONCLUSIVE and "8192 records" in said[1]
    assert verdict_module._status(full, model(), prediction, list(broken), {"PF": 2})[0] is Status.FAIL
    owed = dataclasses.replace(broken[0], rule="D05", consequence=True)  # the page of a vCPU that had not given up
    assert verdict_module._status(full, model(), prediction, [owed], {"PF": 2})[0] is Status.INCONCLUSIVE


def test_a_run_whose_log_fills_is_a_stop_only_of_a_program_that_goes_on_for_ever() -> None:
    """The agent ends it while there is room; by which of these two the program was to end, the model knows."""
    evidence = decode(load("S29"))
    assert evidence.guest is not None
    ticks = [GuestRecord(Record.IRQ, 9, 0, 0, 0x20, 0)] * (LOG_FULL - len(evidence.guest.vcpus[0]))
    full = dataclasses.replace(
        evidence,
        guest=dataclasses.replace(evidence.guest, vcpus=((*evidence.guest.vcpus[0], *ticks),)),
        end=dataclasses.replace(evidence.end, status=EndStatus.GUEST_TIMEOUT, reason="a vCPU had written 4096 records"),
    )
    ends = predict(evidence.plan, model())
    never = dataclasses.replace(ends, ends=False)
    assert log_is_full(full, ends) and not log_is_full(full, never)
    assert not log_is_full(full, dataclasses.replace(ends, undecided_end="by a choice"))
    assert verdict_module._status(full, model(), ends, [], {"PF": 2})[0] is Status.INCONCLUSIVE
    assert verdict_module._status(full, model(), never, [], {"PF": 2})[0] is Status.PASS


def test_a_panic_tells_vector_cr2_flags_and_the_rule() -> None:
    evidence = decode(load("S29"))
    assert evidence.guest is not None
    trap = [
        GuestRecord(Record.FAULT, 1, 0, 0, 14 | 2 << 32, 0x100200),
        GuestRecord(Record.CR2, 2, 0, 0, 0x1000, 0x2),
    ]
    died = dataclasses.replace(
        evidence,
        guest=dataclasses.replace(evidence.guest, vcpus=(tuple(trap),)),
        after=FinalState({0: True}, {0: 0}, {0: 0}, {}),
    )
    (found,) = panics(died)
    assert found.rule == "D39" and found.line > 0
    for words in ("vector 14", "error code 0x2", "CR2 0x1000", "flags word of its shared area is 0x0"):
        assert words in found.message
    other = dataclasses.replace(
        died, guest=dataclasses.replace(evidence.guest, vcpus=((dataclasses.replace(trap[0], a=13),),))
    )
    (found,) = panics(other)
    assert found.rule == "panic" and "vector 13" in found.message and "CR2 unknown" in found.message


def test_a_vcpu_that_sleeps_outside_hlt_never_ran_again() -> None:
    left = Event(Kind.EXIT, 0, line=1, text="kvm_exit: vcpu 0 reason npf rip 0x1")
    out = Event(Kind.OUT, 0, line=2, value=ord("S"))
    assert [f.line for f in stopped([left, out], 1)] == [2]
    assert not list(stopped([left, out, Event(Kind.IN, 0), Event(Kind.ENTRY, 0)], 1))
    halted = dataclasses.replace(left, text="kvm_exit: vcpu 0 reason hlt rip 0x1")
    assert not list(stopped([halted, out], 1))


def test_a_host_warning_comes_with_items_and_rules() -> None:
    files = edit_trace(load("S29"), drop("kvm_async_pf_ready: token 0x1000"))
    files["host/dmesg.txt"] += b"[   12.0] WARNING: CPU: 0 PID: 1 at virt/kvm/async_pf.c:90\n"
    verdict = judge_capture(files, model())
    assert verdict.status is Status.FAIL and verdict.items
    assert verdict.findings[0].rule == "D28" and {"D05", "D16"} & {f.rule for f in verdict.findings}
    assert json.loads(verdict.to_json())["findings"][0]["consequence"] is False


def test_a_guest_that_dies_of_an_exception_that_kvm_gave_it_is_the_kernels_doing_although_no_page_was_touched() -> None:
    """points-6.1, whose writes of MSR_KVM_ASYNC_PF_ACK are refused: the handler of the wake-all dies of a #GP."""
    files = packed_capture("refused-ack")
    verdict = judge_capture(files, model())
    assert verdict.status is Status.FAIL and verdict.findings[0].rule == "panic"
    assert "unexplained:INJ_OTHER" in {f.name for f in verdict.findings}
    silent = edit_trace(files, drop(r".* kvm_inj_exception: "))
    assert judge_capture(silent, model()).status is Status.INCONCLUSIVE


def test_a_vcpu_that_kvm_halts_for_no_page_is_the_kernels_doing_although_no_page_was_touched() -> None:
    """points-6.1, whose ready event of the wake-all leaves apf.halted set: the vCPU sleeps with nothing outstanding."""
    verdict = judge_capture(packed_capture("halted-by-nobody"), model())
    assert verdict.status is Status.FAIL and verdict.findings[0].rule == "stopped"


def test_a_guest_that_dies_of_an_interrupt_of_kvms_is_the_kernels_doing_although_no_page_was_touched() -> None:
    """A planted 7.3 that keeps seven bits of the vector: the wake-all comes where the guest has no handler."""
    files = packed_capture("ready-vector-of-seven-bits")
    verdict = judge_capture(files, find_kernel("nowait-7.3"))
    assert verdict.status is Status.FAIL and verdict.findings[0].rule == "panic"
    assert {"D15", "unexplained:ACC"} <= {f.name for f in verdict.findings}
    unheard = edit_trace(files, drop(r".* kvm_apic_accept_irq: apicid 0 vec 115"))
    assert "D15" in {f.name for f in judge_capture(unheard, find_kernel("nowait-7.3")).findings}


def _after_halt(*then: tuple[Kind, str]) -> list[str]:
    events = [Event(Kind.ENTRY, 0), Event(Kind.EXIT, 0), Event(Kind.PF, 0), Event(Kind.NP, 0, text="the token")]
    events += [Event(kind, 0, value=ord(state) if state else 0) for kind, state in then]
    return [finding.rule for finding in neither_sleeps_nor_enters(events, 1)]


@pytest.mark.parametrize(
    "then",
    [
        [(Kind.OUT, "S")],
        [(Kind.OUT, "R")],  # preempted: not yet asleep
        [(Kind.INJ, ""), (Kind.ENTRY, "")],  # a token
        [(Kind.OUT, "S"), (Kind.IN, ""), (Kind.ENTRY, "")],
        [(Kind.USER_EXIT, "")],  # its VMM has it
    ],
)
def test_a_halt_that_is_one_proves_nothing_against_the_kernel(then: list[tuple[Kind, str]]) -> None:
    assert _after_halt(*then) == []


@pytest.mark.parametrize("then", [[], [(Kind.OUT, "D")], [(Kind.OUT, "S"), (Kind.IN, "")]])
def test_a_vcpu_that_neither_sleeps_nor_enters_is_told_though_a_read_is_held(then: list[tuple[Kind, str]]) -> None:
    assert _after_halt(*then) == ["stopped"]


def test_a_vcpu_whose_log_ended_the_run_may_be_anywhere() -> None:
    """It was preempted behind its worker, and the recording ended as it had its processor back."""
    events = [Event(Kind.ENTRY, 0), Event(Kind.NP, 0), Event(Kind.OUT, 0, value=ord("R")), Event(Kind.IN, 0)]
    both = [*events, *(dataclasses.replace(event, vcpu=1) for event in events)]
    found = list(neither_sleeps_nor_enters(both, 2, to_the_end={0}))
    assert [finding.message.split(":")[0] for finding in found] == ["vCPU 1"]
