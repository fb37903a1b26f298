# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads that sleep for a page of a userfaultfd: how, until when, and what they find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.contract.plan import GuestKind, SwapKind
from harness.evidence.decode import Evidence
from harness.evidence.ram_page import ram_page
from harness.model.events import Event, Kind
from harness.model.walk.flags import VM_FAULT_ERROR, FaultFlag, VmFault

_UNINTERRUPTIBLE = ord("D")


@dataclass(slots=True)
class _Page:
    """When the agent was asked for it, and when it was given, in ns."""

    asked: list[int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)


def userfault_waits(evidence: Evidence) -> tuple[str, ...] | None:
    """Who asks for a page of a userfaultfd sleeps interruptibly where its call has FAULT_FLAG_INTERRUPTIBLE, so that a
    signal gets it out (fs/userfaultfd.c:userfaultfd_get_blocking_state).  A worker, which gets none, sleeps until that
    page is there and not until another one is (userfaultfd_wake_function), and finds it then as it asked for it,
    writable: it has no fault to make for it any more, neither one that sleeps again nor one that makes it writable
    (mm/userfaultfd.c:mfill_atomic_install_pte; mm/gup.c:__get_user_pages).

    :return: in words, one for each call that is otherwise; None: nobody can tell.
    """
    plan, facts = evidence.plan, evidence.facts
    if evidence.gate is None or facts is None or not facts.has_mm_fault or evidence.lost:
        return None
    if plan.guest.kind is not GuestKind.PROBE or plan.swap.kind is not SwapKind.USERFAULT:
        return None
    pages = {page.gpa >> 12: _Page() for page in plan.pages}
    for read in evidence.gate.reads:
        for gfn in read.pages:
            if gfn in pages:
                pages[gfn].asked.append(read.at_ns)
                pages[gfn].given.append(read.answered_ns)
    stays = all(step.action is None for step in evidence.steps)
    return tuple(_found(evidence, pages, stays))


def _found(evidence: Evidence, pages: dict[int, _Page], stays: bool) -> Iterator[str]:
    """``stays``: nobody takes a page away that was given."""
    first = ram_page(evidence.of(Kind.DONE, Kind.PF, Kind.MM_FAULT, Kind.ENTRY))
    calls: dict[int, Event] = {}
    asleep: dict[int, Event] = {}
    for event in evidence.of(Kind.MM_FAULT, Kind.MM_FAULT_RET, Kind.OUT, Kind.IN):
        if event.kind is Kind.MM_FAULT:
            calls[event.tid] = event
        elif event.kind is Kind.OUT:
            asleep[event.tid] = event
        elif (call := calls.get(event.tid)) is not None:
            page = pages.get(gfn := (call.hva >> 12) - first, _Page())
            if event.kind is Kind.IN:
                out = asleep.get(event.tid)
                if out is not None and out.t_ns >= call.t_ns and _deaf(call, out, event, page):
                    yield (
                        f"a thread whose call for page {gfn:#x} of a userfaultfd is to be interruptible sleeps so that"
                        f" no signal wakes it (trace line {out.line})"
                    )
                continue
            del calls[event.tid]
            if event.worker and _early(call, event, page):
                yield (
                    f"a worker's call for page {gfn:#x} of a userfaultfd came back before the page was given (trace"
                    f" line {event.line})"
                )
            if event.worker and stays and _wanting(call, event, page):
                yield (
                    f"a worker has a fault to make once more for page {gfn:#x} of a userfaultfd, for which it has slept"
                    f" (trace line {event.line})"
                )


def _deaf(call: Event, out: Event, back: Event, page: _Page) -> bool:
    """It has slept for the page: that was given meanwhile, for the first time."""
    asked = FaultFlag.INTERRUPTIBLE | FaultFlag.RETRY_NOWAIT
    if call.value & asked != FaultFlag.INTERRUPTIBLE or out.value != _UNINTERRUPTIBLE:
        return False
    return bool(page.given) and out.t_ns <= min(page.given) < back.t_ns


def _early(call: Event, end: Event, page: _Page) -> bool:
    if not end.value & VmFault.RETRY or call.value & FaultFlag.RETRY_NOWAIT:
        return False
    return any(at <= end.t_ns for at in page.asked) and not any(at <= end.t_ns for at in page.given)


def _wanting(call: Event, end: Event, page: _Page) -> bool:
    if not call.value & FaultFlag.TRIED or end.value & VM_FAULT_ERROR:
        return False
    return any(at <= call.t_ns for at in page.asked)
