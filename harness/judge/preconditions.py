# SPDX-License-Identifier: GPL-2.0-or-later
"""Was every planned page in its state when the guest was let go?  precondition.json, page by page, against the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.contract.capture import PageProof, Precondition, out_of_state, workload_not_out
from harness.contract.plan import PAGE_SIZE, Backing, GuestKind, Page, Plan


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
    """The totals prove that the workload's pages were out (old captures: that less was left in memory)."""
    if pages and "swapped" not in totals:
        if "anon_left" not in totals:
            yield "precondition.json does not say what was swapped out"
        elif totals["anon_left"] >= pages * PAGE_SIZE:
            yield f"{totals['anon_left']} bytes were left in memory, the workload has {pages} pages"
    elif text := workload_not_out(pages, totals):
        yield text


def _contradiction(plan: Plan, page: Page, proof: PageProof) -> str:
    if proof.start is not page.start:
        return f"recorded as {proof.start}"
    anonymous = plan.memory.backing is Backing.ANON and not plan.memory.share
    return out_of_state(proof, in_page_table=anonymous)
