# SPDX-License-Identifier: GPL-2.0-or-later
"""What a capture says of pages and totals, held against what was planned."""

from __future__ import annotations

import pytest

from harness.contract.capture import PageProof, out_of_state, workload_not_out
from harness.contract.plan import PageStart


@pytest.mark.parametrize(
    ("anonymous", "start", "mapped", "cached", "hole", "problem"),
    [
        (True, PageStart.UNTOUCHED, "", False, False, ""),
        (True, PageStart.UNTOUCHED, "swapped", False, False, "allocated"),
        (True, PageStart.UNTOUCHED, "present", False, False, "still in the page table"),
        (True, PageStart.POPULATED, "present", False, False, ""),
        (True, PageStart.POPULATED, "swapped", False, False, "not in the page table"),
        (True, PageStart.SWAPPED, "swapped", False, False, ""),
        (True, PageStart.SWAPPED, "swapped", True, False, "in the swap cache"),
        (True, PageStart.SWAPPED, "", False, False, "no swap entry"),
        (True, PageStart.ZERO_SWAPPED, "present", False, False, "still in the page table"),
        (True, PageStart.SWAPCACHE, "swapped", True, False, ""),
        (True, PageStart.SWAPCACHE, "swapped", False, False, "not in the swap cache"),
        (False, PageStart.SWAPPED, "", False, False, ""),
        (False, PageStart.SWAPPED, "", True, False, "in the swap cache"),
        (False, PageStart.SWAPPED, "", False, True, "was never written"),
        (False, PageStart.UNTOUCHED, "", False, True, ""),
        (False, PageStart.UNTOUCHED, "", False, False, "allocated"),
        (False, PageStart.DROPPED, "", False, False, ""),
        (False, PageStart.DROPPED, "", True, False, "in the page cache"),
        (False, PageStart.DROPPED, "", False, True, "no data on the disk"),
        (False, PageStart.DROPPED, "present", True, False, "still in the page table"),
    ],
)
def test_what_keeps_a_page_from_its_state(
    anonymous: bool, start: PageStart, mapped: str, cached: bool, hole: bool, problem: str
) -> None:
    proof = PageProof(0x1000, "p", start, mapped == "present", mapped == "swapped", cached, hole=hole)
    assert out_of_state(proof, in_page_table=anonymous) == problem


@pytest.mark.parametrize("start", list(PageStart))
@pytest.mark.parametrize("anonymous", [False, True])
def test_no_start_is_taken_on_trust(start: PageStart, anonymous: bool) -> None:
    """Of each there is something that is not that state."""
    all_ = [
        PageProof(0x1000, "p", start, present, swapped, cached, hole=hole)
        for present in (False, True)
        for swapped in (False, True)
        for cached in (False, True)
        for hole in (False, True)
    ]
    told = [out_of_state(proof, in_page_table=anonymous) for proof in all_]
    assert any(told) and not all(told)


@pytest.mark.parametrize(
    ("pages", "totals", "text"),
    [
        (512, {"swapped": 512, "swap_cached": 0}, ""),
        (512, {"swapped": 511, "swap_cached": 0}, "only 511"),
        (512, {"swapped": 600, "swap_cached": 3}, "3 pages are in the swap cache"),
        (0, {"swapped": 0}, ""),
        (0, {"swapped": 2}, "2 pages of the guest are swapped out before it boots"),
    ],
)
def test_a_workload_that_is_not_out(pages: int, totals: dict[str, int], text: str) -> None:
    told = workload_not_out(pages, totals)
    assert (text in told) if text else not told
