# SPDX-License-Identifier: GPL-2.0-or-later
"""Places of the pages that a plan does not name."""

from __future__ import annotations

from harness.judge.recorded_places import with_neighbours


def test_a_file_lies_in_one_piece_up_to_the_next_page_that_is_named() -> None:
    """As in S211: data, a hole, data, and one that nobody names, four times; holes take no place."""
    known = with_neighbours({0x1000: 104, 0x1002: 112, 0x1004: 128}, {0x1000, 0x1001, 0x1002, 0x1004})
    assert known[0x1003] == 120 and 0x1001 not in known
    assert known[0xFFF] == 96 and 0xFFF - 12 in known and 0xFFF - 13 not in known, "the device begins there"
    assert known[0x1005] == 136 and known[0x1004 + 31] == 128 + 31 * 8 and 0x1004 + 32 not in known


def test_no_sector_is_two_pages() -> None:
    known = with_neighbours({0x1000: 8, 0x1010: 80}, {0x1000, 0x1010})
    assert len(set(known.values())) == len(known)
