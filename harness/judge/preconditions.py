# SPDX-License-Identifier: GPL-2.0-or-later
"""Was every planned page in its state when the guest was let go?  precondition.json, page by page, against the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.contract.capture import PageProof, Precondition
from harness.contract.plan import Backing, GuestKind, Page, PageStart, Plan

_OUT = (PageStart.SWAPPED, PageStart.ZERO_SWAPPED)


def problems(plan: Plan, seen: Precondition | None) -> Iterator[str]:
    """What keeps the run from proving anything; nothing when all is as planned."""
    if seen is None:
        yield "the agent does not say that the precondition was reached"
        return
    if not seen.reached:
        yield seen.reason or "the agent does not say that the precondition was reached"
    if plan.guest.kind is GuestKind.LINUX:
        yield from _linux(plan.guest.workload_pages, seen.totals)
        return
    if seen.outside:
        yield f"{len(seen.outside)} pages of the guest outside the plan were swapped"
    for page in plan.pages:
        proof = seen.pages.get(page.gpa)
        if proof is None:
            yield f"{page.name}: its state was not recorded"
            continue
        text = proof.problem or _contradiction(plan, page, proof)
        if text:
            yield f"{page.name} ({page.start}): {text}"


def _linux(pages: int, totals: Mapping[str, int]) -> Iterator[str]:
    """The totals prove that the workload's pages were out (old captures: that little was left in memory)."""
    if not pages:
        return
    if "swapped" not in totals and "anon_left" not in totals:
        yield "precondition.json does not say what was swapped out"
    elif totals.get("swapped", pages) < pages:
        yield f"{totals['swapped']} pages were swapped out, the workload has {pages}"


def _contradiction(plan: Plan, page: Page, proof: PageProof) -> str:
    present, swapped, cached = proof.present, proof.swapped, proof.cached
    if proof.start is not page.start:
        return f"recorded as {proof.start}"
    if page.start in (*_OUT, PageStart.DROPPED, PageStart.UNTOUCHED) and present:
        return "mapped in QEMU's page table"
    if page.start in _OUT and cached:
        return "still in the swap cache"
    if page.start is PageStart.DROPPED and cached:
        return "still in the page cache"
    anonymous = plan.memory.backing is Backing.ANON and not plan.memory.share
    if page.start in _OUT and anonymous and not swapped:
        return "not swapped"
    if page.start is PageStart.UNTOUCHED and swapped:
        return "swapped, so it was touched before"
    if page.start is PageStart.POPULATED and not present:
        return "not mapped in QEMU's page table"
    return ""
