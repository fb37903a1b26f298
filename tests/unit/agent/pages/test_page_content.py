# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import struct
import zlib
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from harness.agent.pages.page_content import page_content, planned_content
from harness.contract.plan import Access, By, Item, Op
from tests.unit.agent.conftest import make_plan

u64 = st.integers(0, 2**64 - 1)


@given(u64, u64)
def test_page_content(gpa: int, nonce: int) -> None:
    content = page_content(gpa, nonce)
    assert len(content) == 4096
    assert struct.unpack_from("<Q", content)[0] == gpa ^ nonce ^ 0x5555555555555555
    assert len(zlib.compress(content, 9)) > 4000
    assert page_content(gpa, nonce) == content


def test_foldable_pages_keep_their_known_bytes_and_are_no_single_repeated_word() -> None:
    """zswap_is_page_same_filled (mm/zswap.c) must not see one word repeated, or it would store no compressed page."""
    folded, usual = page_content(0x1000000, 7, foldable=True), page_content(0x1000000, 7)
    assert folded[:8] == usual[:8] != bytes(8)
    assert len(folded) == 4096 and len(zlib.compress(folded)) < 100 < 4000 < len(zlib.compress(usual))


def test_a_page_that_is_an_idt_holds_gates_to_the_stubs() -> None:
    """Behind the known bytes: the offset of each is 16 bytes above the one before it, the vector of INT has DPL 3."""
    stack, table, other = 0x1000000, 0x1001000, 0x1002000
    items = (
        Item(0, Op.TOUCH, gpa=stack, access=Access.WRITE, by=By.INTERRUPT),
        Item(1, Op.TOUCH, gpa=table, by=By.EXCEPTION),
        Item(2, Op.TOUCH, gpa=other),
    )
    plan = replace(make_plan(pages=0), items=items)
    content = planned_content(plan, table)
    assert content[:8] == page_content(table, plan.nonce)[:8] and len(content) == 4096
    for vector in range(1, 256):
        low, selector, kind, high, top = struct.unpack_from("<HHHHQ", content, 16 * vector)
        assert (low | high << 16, selector, top) == (0x100000 + 16 * vector, 8, 0)
        assert kind & ~7 == (0xEE00 if vector == 0x81 else 0x8E00)
        assert kind & 7 == {2: 2, 14: 3, 0x42: 3}.get(vector, 1)
    for gpa in (stack, other):
        assert planned_content(plan, gpa) == page_content(gpa, plan.nonce)
