# SPDX-License-Identifier: GPL-2.0-or-later
"""The token word of the shared area, and who asks KVM to look at it."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from harness.contract.plan import Item, Op
from harness.contract.probe_abi import Record
from harness.evidence.decode import Evidence, decode
from harness.evidence.guestlog import GuestRecord
from harness.judge.token_slot import token_slots
from harness.judge.verdict import judge_capture
from harness.model.events import MSR_ASYNC_PF_ACK, Kind
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture

FILES = packed_capture("explored-cleared-and-nobody-asks")


def more(evidence: Evidence, item: Item) -> Evidence:
    """The same with a last item that ended."""
    assert evidence.guest is not None
    (records,) = evidence.guest.vcpus
    end = GuestRecord(Record.END, records[-1].tsc, 0, item.index, item.value, 0)
    plan = replace(evidence.plan, items=(*evidence.plan.items, item))
    return replace(evidence, plan=plan, guest=replace(evidence.guest, vcpus=((*records, end),)))


def test_a_wake_all_that_waited_when_the_guest_cleared_the_word_waits_to_the_end() -> None:
    """6.1: the area lies in a page that holds data.  The guest clears its token word, and writes EN again, which finds
    the wake-all waiting and asks for nothing."""
    verdict = judge_capture(FILES, model_of(FILES, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason


def test_when_the_word_was_cleared_is_known_on_the_clock_of_the_trace() -> None:
    """Between the fault before it and the one behind it, within the time that the clocks differ by."""
    evidence = decode(FILES)
    slots = token_slots(evidence)
    second, third = [e.t_ns for e in evidence.of(Kind.PF) if e.gpa & -4096 in (0x1A00000, 0x1A02000)]
    assert not slots.taken and second < slots.freed[0] < third + 20_000


@pytest.mark.parametrize("item", [Item(7, Op.WRMSR, msr=MSR_ASYNC_PF_ACK, value=1), Item(7, Op.LAPIC, value=1)])
def test_an_ack_and_the_lapic_ask_for_what_waits(item: Item) -> None:
    assert token_slots(more(decode(FILES), item)).freed == {}


def test_a_clock_that_begins_anew_tells_of_no_time() -> None:
    assert token_slots(more(decode(FILES), Item(7, Op.RESET))).freed == {0: inf}
