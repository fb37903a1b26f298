# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs of real guests hold together; without, or with twice, any of their records they do not."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest

from harness.contract.capture import FEATURES_NOT_READ, FORMAT, WAITS_NOT_KEPT
from harness.contract.plan import HostAction, HostWord, Item, Op, TimedAction
from harness.contract.probe_abi import LEAF_BITS, RESETS_BITS, FeaturesLeaf, Record
from harness.evidence import guest_frame
from harness.evidence.decode import decode
from harness.evidence.guestlog import GuestLog, GuestRecord, boot_of
from tests.unit.judge.golden import NAMES, load
from tests.unit.judge.packed import packed_capture

PROBES = [name for name in NAMES if "guest/log.bin" in load(name)]
frame_problems = partial(guest_frame.frame_problems, capture_format=FEATURES_NOT_READ)
"""Of the logs here, whose guests had the control page of today."""
LONE = (Record.MSR, Record.IRQ)
"""Records that stand for themselves: the trace is what they are held against."""


def edited(log: GuestLog, vcpu: int, records: list[GuestRecord]) -> GuestLog:
    logs = list(log.vcpus)
    logs[vcpu] = tuple(records)
    return dataclasses.replace(log, vcpus=tuple(logs))


@pytest.mark.parametrize("name", PROBES)
def test_a_real_log_holds_together_and_no_record_of_it_is_idle(name: str) -> None:
    evidence = decode(load(name))
    plan, log = evidence.plan, evidence.guest
    assert log is not None and not list(frame_problems(plan, log))
    for vcpu, records in enumerate(log.vcpus):
        for at, record in enumerate(records):
            if record.kind in LONE:
                continue
            without = edited(log, vcpu, [*records[:at], *records[at + 1 :]])
            if not (record.kind is Record.READY and record.item < 0):
                assert list(frame_problems(plan, without)), f"without {record}"
            if record.kind is not Record.READY:
                assert list(frame_problems(plan, edited(log, vcpu, [*records[: at + 1], *records[at:]]))), record


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (Record.BOOT, {"a": 7}, "APIC id"),
        (Record.BOOT, {"b": 1}, "resets"),
        (Record.START, {"a": 1}, "starts with"),
        (Record.END, {"b": 13}, "exception"),
        (Record.END, {"item": 99}, "the plan has"),
        (Record.TOKEN, {"item": 1}, "not running"),
        (Record.READY, {"b": 0x31}, "vector"),
        (Record.WAKE, {"a": 1}, "goes on for"),
        (Record.DONE, {"a": 1}, "nonce"),
        (Record.DONE, {"b": 1}, "items ended"),
        (Record.END, {"tsc": 0}, "before that"),
    ],
)
def test_what_the_program_cannot_have_written(kind: Record, change: dict[str, int], words: str) -> None:
    evidence = decode(load("S29"))
    log = evidence.guest
    assert log is not None
    records = list(log.vcpus[0])
    at = next(i for i, r in enumerate(records) if r.kind is kind)
    records[at] = dataclasses.replace(records[at], **change)  # type: ignore[arg-type]
    assert words in " ".join(frame_problems(evidence.plan, edited(log, 0, records)))


def test_behind_an_exit_of_an_l2_that_its_l1_does_not_know_stands_a_panic() -> None:
    panicked = decode(packed_capture("explored-virtual-interrupt-lost"))
    assert panicked.guest is not None and not list(frame_problems(panicked.plan, panicked.guest))
    log = panicked.guest
    vcpu, at = next((v, n) for v, log in enumerate(log.vcpus) for n, r in enumerate(log) if r.kind is Record.FAULT)
    records = [*log.vcpus[vcpu][:at], *(r for r in log.vcpus[vcpu] if r.kind is Record.START)]
    assert "no item goes on" in " ".join(frame_problems(panicked.plan, edited(log, vcpu, records)))


def test_a_snapshot_has_the_time_stamp_counter_of_then() -> None:
    evidence = decode(load("S29"))
    log, plan = evidence.guest, evidence.plan
    assert log is not None
    records = list(log.vcpus[0])
    records[-2] = dataclasses.replace(records[-2], tsc=1)
    back = edited(log, 0, records)
    assert "before that" in " ".join(frame_problems(plan, back))
    loads = dataclasses.replace(plan, host_actions=(*plan.host_actions, (HostAction(HostWord.LOADVM),)))
    assert "before that" not in " ".join(frame_problems(loads, back))


def test_an_nmi_is_one_that_the_plan_has() -> None:
    evidence = decode(load("S29"))
    assert evidence.guest is not None
    records = list(evidence.guest.vcpus[0])
    nmi = TimedAction(0, (HostAction(HostWord.NMI),))
    for at, before in ((-1, -2), (len(records), -1)):  # it comes at the end of the program, whatever RFLAGS.IF is, too
        more = list(records)
        more.insert(at, dataclasses.replace(records[before], kind=Record.NMI, item=-1, a=0, b=0))
        log = edited(evidence.guest, 0, more)
        assert any("an NMI, and the plan has none" in text for text in frame_problems(evidence.plan, log))
        assert not list(frame_problems(dataclasses.replace(evidence.plan, timed=(nmi,)), log))


def test_a_vcpu_that_is_given_an_init_boots_again() -> None:
    """Another vCPU, which is given none, does not."""
    evidence = decode(packed_capture("explored-reset-of-two"))
    plan, log = evidence.plan, evidence.guest
    assert log is not None
    lone = dataclasses.replace(plan, host_actions=((),), items=tuple(i for i in plan.items if i.vcpu == 0))
    again = [dataclasses.replace(r, b=1) if n and r.kind is Record.BOOT else r for n, r in enumerate(log.vcpus[1])]
    told = [list(frame_problems(p, edited(log, 1, again))) for p in (plan, lone)]
    assert not any("vCPU 1" in text and "boot" in text for text in told[0])
    assert any("vCPU 1" in text and "a second boot, and the plan has no reset" in text for text in told[1])
    init = Item(index=len(lone.items), op=Op.INIT, value=1)
    found = list(frame_problems(dataclasses.replace(lone, items=(*lone.items, init)), edited(log, 1, again)))
    assert not any("vCPU 1" in text and "boot" in text for text in found)
    assert any("vCPU 0" in text and "a second boot, and the plan has no reset" in text for text in found)


def test_the_control_page_says_what_the_log_says() -> None:
    """Each of these passed before."""
    evidence = decode(load("S61"))
    plan, log = evidence.plan, evidence.guest
    assert log is not None and not list(frame_problems(plan, log))
    (first, *others) = log.progress
    for lie, words in (
        (dataclasses.replace(log, ended_vcpus=0), "0 vCPUs have ended"),
        (dataclasses.replace(log, host_entries=log.host_entries + 1), "the agent was asked"),
        (dataclasses.replace(log, progress=(dataclasses.replace(first, done=99), *others)), "the control page says 99"),
        (
            dataclasses.replace(log, progress=(dataclasses.replace(first, next=0), *others)),
            "the control page has it at 0",
        ),
    ):
        assert words in " ".join(frame_problems(plan, lie))
    assert not list(frame_problems(plan, lie, capture_format=WAITS_NOT_KEPT))


def test_a_clear_token_of_today_says_what_it_found() -> None:
    evidence = decode(packed_capture("explored-cleared-and-nobody-asks"))
    plan, log = evidence.plan, evidence.guest
    assert log is not None
    assert not list(frame_problems(plan, log, capture_format=WAITS_NOT_KEPT))
    assert "which is no token word" in " ".join(frame_problems(plan, log))


@pytest.mark.parametrize(
    ("leaf", "features", "old", "new"),
    [
        (FeaturesLeaf.NOT_READ, 0, "", "does not say"),
        (FeaturesLeaf.NONE, 0, "no guest of its time", ""),
        (FeaturesLeaf.NONE, 1, "no guest of its time", "has found no KVM"),
        (FeaturesLeaf.FIRST, 0, "no guest of its time", ""),
        (FeaturesLeaf.FIRST, 0xFFFFFFFF, "no guest of its time", ""),
        (FeaturesLeaf.BEHIND, 1 << 14, "no guest of its time", ""),
        (FeaturesLeaf.NOT_READ, 1, "no guest of its time", "does not say"),
        (max(FeaturesLeaf) + 1, 1, "no guest of its time", "does not say"),
    ],
)
def test_since_format_8_each_boot_says_what_kvm_offers(leaf: int, features: int, old: str, new: str) -> None:
    evidence = decode(load("S61"))
    plan, log = evidence.plan, evidence.guest
    assert log is not None
    b = leaf << RESETS_BITS | features << RESETS_BITS + LEAF_BITS
    told = [
        tuple(dataclasses.replace(e, b=e.b | b) if e.kind is Record.BOOT else e for e in of_one) for of_one in log.vcpus
    ]
    said = dataclasses.replace(log, vcpus=tuple(told))
    for capture_format, words in ((FEATURES_NOT_READ, old), (FORMAT, new)):
        found = list(guest_frame.frame_problems(plan, said, capture_format))
        assert len(found) == (plan.guest.vcpus if words else 0) and all(words in text for text in found)
    assert {(boot.leaf, boot.features) for boot in map(boot_of, (r[0] for r in said.vcpus))} == {(leaf, features)}
