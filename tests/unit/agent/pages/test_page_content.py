# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st

from harness.agent.pages.page_content import page_content

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
