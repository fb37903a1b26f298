# SPDX-License-Identifier: GPL-2.0-or-later
"""Words of pagemap, read one by one and searched for swap entries."""

from __future__ import annotations

import array

from hypothesis import given
from hypothesis import strategies as st

from harness.agent.pages.pagemap import decode_entry, swapped_indices


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=60))
def test_the_search_finds_what_each_word_says(words: list[int]) -> None:
    raw = array.array("Q", words).tobytes()
    assert list(swapped_indices(raw)) == [n for n, word in enumerate(words) if decode_entry(word).swapped]


def test_a_present_page_is_no_swap_entry() -> None:
    assert list(swapped_indices(array.array("Q", [1 << 63, 1 << 62, 0, 1 << 62 | 7]).tobytes())) == [1, 3]
