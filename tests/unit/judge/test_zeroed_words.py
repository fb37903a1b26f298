# SPDX-License-Identifier: GPL-2.0-or-later
"""D70: KVM writes over no token that the guest has not zeroed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract.plan import SHARED_GPA, Item, Op
from harness.contract.probe_abi import FOUND, NO_ITEM, Record
from harness.evidence.decode import Evidence, decode
from harness.evidence.guestlog import GuestRecord
from harness.judge.zeroed_words import overwritten_tokens
from harness.model.events import MSR_ASYNC_PF_EN
from tests.unit.judge.packed import packed_capture

CLEAR, HOST, EN, LAPIC = range(4)
ITEMS = (
    Item(CLEAR, Op.CLEAR_TOKEN),
    Item(HOST, Op.HOST),
    Item(EN, Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=SHARED_GPA | 9),
    Item(LAPIC, Op.LAPIC, value=1),
)
FOUND_1, FOUND_2 = (Record.READY, NO_ITEM, 0x1001), (Record.READY, NO_ITEM, 0x2001)
Entry = tuple[Record, int, int]


def ends(item: int, value: int = 0) -> Entry:
    return Record.END, item, value


def clears(found: int) -> Entry:
    return ends(CLEAR, FOUND | found)


@pytest.fixture(scope="module")
def recorded() -> Evidence:
    return decode(packed_capture("explored-cleared-and-nobody-asks"))


def found(recorded: Evidence, *entries: Entry, items: tuple[Item, ...] = ITEMS, **apf: object) -> int | None:
    """How many tokens were written over in a log of these records of one vCPU."""
    plan, log = recorded.plan, recorded.guest
    assert log is not None
    apf = {"zero_token": False, "en_gpa": -1, **apf}
    guest = replace(plan.guest, apf=replace(plan.guest.apf, **apf))  # type: ignore[arg-type]
    records = tuple(GuestRecord(kind, n, 0, item, a, 0) for n, (kind, item, a) in enumerate(entries))
    lost = overwritten_tokens(
        replace(recorded, plan=replace(plan, guest=guest, items=items), guest=replace(log, vcpus=(records,)))
    )
    return None if lost is None else len(lost)


@pytest.mark.parametrize(
    ("entries", "lost"),
    [
        ((FOUND_1, clears(0x1001), FOUND_2, clears(0x2001)), 0),
        ((FOUND_1, clears(0), FOUND_2, clears(0x2001)), 1),
        ((FOUND_1, clears(0x2001)), 1),
        ((FOUND_1, FOUND_2, clears(0x2001)), 1),
        ((FOUND_1, FOUND_1, clears(0x1001)), 0),
        # who found nothing, or has cleared it, does not know what comes behind
        ((clears(0x1001), clears(0), FOUND_1, clears(0x1001), clears(0x2001)), 0),
        ((FOUND_1, (Record.BOOT, NO_ITEM, 0), FOUND_2), 0),
        ((FOUND_1, ends(EN, SHARED_GPA | 9), FOUND_2), 0),
        ((FOUND_1, ends(HOST), ends(LAPIC, 1), FOUND_2), 1),
        # a guest that did not look
        ((FOUND_1, ends(CLEAR), FOUND_2), 0),
    ],
)
def test_what_was_found_is_found_again_until_it_is_zeroed(
    recorded: Evidence, entries: tuple[Entry, ...], lost: int
) -> None:
    assert found(recorded, *entries) == lost


def test_a_word_that_is_not_the_guests_alone_tells_nothing(recorded: Evidence) -> None:
    wrong = (FOUND_1, FOUND_2)
    assert found(recorded, *wrong) == 1
    assert found(recorded, *wrong, zero_token=True) is None
    assert found(recorded, *wrong, en_gpa=0x1A00000) is None
    moved = Item(EN, Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=SHARED_GPA + 64 | 9)
    assert found(recorded, *wrong, items=(*ITEMS[:2], moved)) is None
    off = Item(EN, Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=0)
    assert found(recorded, *wrong, items=(*ITEMS[:2], off)) == 1
    assert overwritten_tokens(replace(recorded, guest=None)) is None
