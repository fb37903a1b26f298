# SPDX-License-Identifier: GPL-2.0-or-later
"""Was every planned page in its state when the guest was let go?  precondition.json, page by page, against the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.contract.plan import Backing, GuestKind, Page, PageStart, Plan

_OUT = (PageStart.SWAPPED, PageStart.ZERO_SWAPPED)


def problems(plan: Plan, seen: Mapping[str, Any]) -> Iterator[str]:
    """What keeps the run from proving anything; nothing when all is as planned."""
    if plan.guest.kind is GuestKind.LINUX:
        return
    if seen.get("reached") is not True:
        yield str(seen.get("reason") or "the agent does not say that the precondition was reached")
    if seen.get("others_swapped"):
        yield f"{seen['others_swapped']} pages of the guest outside the plan were swapped"
    pages = seen.get("pages")
    if not isinstance(pages, Mapping):
        yield "precondition.json has no pages"
        return
    for page in plan.pages:
        record = pages.get(str(page.gpa))
        if not isinstance(record, Mapping):
            yield f"{page.name}: its state was not recorded"
            continue
        text = str(record.get("problem") or "") or _contradiction(plan, page, record)
        if text:
            yield f"{page.name} ({page.start}): {text}"


def _contradiction(plan: Plan, page: Page, record: Mapping[str, Any]) -> str:
    present, swapped, cached = (record.get(k) is True for k in ("present", "swapped", "cached"))
    if record.get("start") != page.start.value:
        return f"recorded as {record.get('start')!r}"
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
