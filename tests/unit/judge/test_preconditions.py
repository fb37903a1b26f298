# SPDX-License-Identifier: GPL-2.0-or-later
"""What keeps a run from proving anything: the states of pages and the totals of real captures, damaged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract.plan import PageStart
from harness.evidence.decode import decode
from harness.judge.preconditions import problems
from tests.unit.judge.golden import load
from tests.unit.judge.packed import packed_capture


@pytest.mark.parametrize("start", list(PageStart))
def test_each_page_has_to_be_in_the_state_that_was_planned(start: PageStart) -> None:
    """The agent's word that all was reached is not enough, whatever the state."""
    evidence = decode(load("S36"))
    seen = evidence.precondition
    assert seen is not None and not list(problems(evidence.plan, seen))
    page = evidence.plan.pages[0]
    plan = replace(evidence.plan, pages=(replace(page, start=start), *evidence.plan.pages[1:]))
    proof = seen.pages[page.gpa]
    assert start is page.start or "recorded as" in next(problems(plan, seen))
    elsewhere = {
        PageStart.POPULATED: replace(proof, start=start, present=False),
        PageStart.DROPPED: replace(proof, start=start, present=False, cached=True),
        PageStart.SWAPCACHE: replace(proof, start=start, present=False, cached=False),
    }.get(start, replace(proof, start=start, present=True))
    assert list(problems(plan, replace(seen, pages={**seen.pages, page.gpa: elsewhere})))
    missing = {gpa: other for gpa, other in seen.pages.items() if gpa != page.gpa}
    assert "its state was not recorded" in next(problems(plan, replace(seen, pages=missing)))


@pytest.mark.parametrize(
    ("totals", "told"),
    [
        ({"anon_left": 512 * 4096 - 1}, ""),
        ({"anon_left": 512 * 4096}, "were left in memory"),
        ({}, "does not say what was swapped out"),
        ({"swapped": 511}, "only 511"),
        ({"swapped": 512}, ""),
        ({"swapped": 512, "swap_cached": 1}, "in the swap cache"),
    ],
)
def test_the_pages_of_a_workload_have_to_be_out(totals: dict[str, int], told: str) -> None:
    evidence = decode(packed_capture("enabled"))
    assert evidence.precondition is not None and evidence.plan.guest.workload_pages == 512
    found = list(problems(evidence.plan, replace(evidence.precondition, totals=totals)))
    assert (told in found[0]) if told else not found
