# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults that were to be repeated before the page was there, so that what waits then waits with mmap_lock held; or
although whoever asked cannot repeat them, or has done so; and looks that were made twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.contract.plan import GuestKind, SwapKind
from harness.evidence.decode import Evidence
from harness.evidence.ram_page import ram_page
from harness.model.events import Event, Kind
from harness.model.walk.flags import VM_FAULT_ERROR, FaultFlag, VmFault

_WAITS = FaultFlag.ALLOW_RETRY
_NEED_NOT = ~(FaultFlag.INTERRUPTIBLE - 1) | FaultFlag.RETRY_NOWAIT
"""With one of these a call may come back before the page is there.  Bits above INTERRUPTIBLE: that of a noio series."""


def early_retries(evidence: Evidence) -> tuple[str, ...] | None:
    """A call of handle_mm_fault that lets go of mmap_lock (VM_FAULT_RETRY) waits for the page's lock first, which the
    end of the read gives back (mm/filemap.c:__folio_lock_or_retry, lock_folio_maybe_drop_mmap; 5.10:
    __lock_page_or_retry, lock_page_maybe_drop_mmap): what comes back while the read is not answered has not waited.

    :return: in words, one for each such call; None: nobody can tell, as there is no gated device, no probe, or no plan
        that names the pages.
    """
    plan, facts = evidence.plan, evidence.facts
    if evidence.gate is None or facts is None or not facts.has_mm_fault:
        return None
    if plan.guest.kind is not GuestKind.PROBE or plan.swap.kind is SwapKind.USERFAULT:
        return None
    # The server gets them one after the other: some time after they were submitted.
    submitted: dict[int, list[int]] = {}
    for bio in evidence.of(Kind.BIO):
        if bio.flag and bio.dev == facts.swap_dev:
            submitted.setdefault(bio.value, []).append(bio.t_ns)
    reads: dict[int, list[tuple[int, int]]] = {}
    for read in evidence.gate.reads:
        begin = max((t for t in submitted.get(read.sector, ()) if t <= read.at_ns), default=read.at_ns)
        for page in read.pages:
            reads.setdefault(page, []).append((begin, read.answered_ns))
    first = ram_page(evidence.of(Kind.DONE, Kind.PF, Kind.MM_FAULT, Kind.ENTRY))
    return tuple(
        f"a call of handle_mm_fault for page {gfn:#x} came back to be repeated {(end - event.t_ns) / 1e6:.3f} ms"
        f" before the page's read was answered (trace line {event.line})"
        for event, gfn in _repeated(evidence, first)
        for begin, end in reads.get(gfn, ())
        if begin <= event.t_ns < end
    )


def forbidden_retries(evidence: Evidence) -> tuple[str, ...] | None:
    """A call of handle_mm_fault without ALLOW_RETRY comes to an end: VM_FAULT_RETRY tells who asked that mmap_lock may
    be gone (mm/filemap.c:__folio_lock_or_retry, fault_flag_allow_retry_first; mm/internal.h:maybe_unlock_mmap_for_io;
    fs/userfaultfd.c:handle_userfault), and has GUP come back without a page and without an error.

    :return: in words, one for each such call; None: nobody can tell.
    """
    if evidence.facts is None or not evidence.facts.has_mm_fault:
        return None
    return tuple(
        f"a call of handle_mm_fault with flags {call.value:#x} for {call.hva:#x} came back to be repeated, which they"
        f" do not allow (trace line {event.line})"
        for call, event in _retried(evidence)
        if not call.value & FaultFlag.ALLOW_RETRY
    )


def asked_again(evidence: Evidence) -> tuple[str, ...] | None:
    """Who does not want to wait asks once: a look that is refused (VM_FAULT_RETRY under RETRY_NOWAIT, an error under
    FAULT_FLAG_MINOR of a noio series) is followed by one that waits, or by none, until the guest has faulted once more
    (virt/kvm/kvm_main.c:hva_to_pfn_slow) or has a work for it, whose ready event's prefetch looks anew.  And a fault
    that is repeated (TRIED) waits with mmap_lock held, so that it comes to its end (mm/filemap.c:__folio_lock_or_retry,
    fault_flag_allow_retry_first); but for fs/userfaultfd.c:handle_userfault, which lets go of the lock each time.  One
    that a fatal signal ends (QEMU exits) comes back and is not repeated (folio_lock_killable).

    :return: in words, one for each such call; None: nobody can tell.
    """
    if evidence.facts is None or not evidence.facts.has_mm_fault:
        return None
    found: list[str] = []
    called: dict[int, Event] = {}
    refused: dict[int, Event] = {}
    undone: dict[int, Event] = {}
    for event in evidence.of(Kind.MM_FAULT, Kind.MM_FAULT_RET, Kind.PF, Kind.TRY, Kind.ENTRY):
        if event.kind is Kind.MM_FAULT:
            called[event.tid], before = event, refused.pop(event.tid, None)
            if (end := undone.pop(event.tid, None)) is not None and end.hva == event.hva:
                found.append(
                    f"a repeated call of handle_mm_fault for {event.hva:#x} came back (trace line {end.line}) and is"
                    f" repeated again (trace line {event.line})"
                )
            if before is not None and (before.hva, before.value) == (event.hva, event.value):
                found.append(
                    f"a call of handle_mm_fault with flags {event.value:#x} for {event.hva:#x} was refused, and is"
                    f" made once more (trace line {event.line})"
                )
        elif event.kind is not Kind.MM_FAULT_RET:
            refused.pop(event.tid, None)
        elif (call := called.pop(event.tid, None)) is not None:
            if _refused(call, event):
                refused[event.tid] = call
            if call.value & FaultFlag.TRIED and event.value & VmFault.RETRY and not _userfault(evidence):
                undone[event.tid] = replace(event, hva=call.hva)
    return tuple(found)


def _refused(call: Event, end: Event) -> bool:
    if call.value & FaultFlag.ALLOW_RETRY:
        return bool(call.value & FaultFlag.RETRY_NOWAIT and end.value & VmFault.RETRY)
    return bool(end.value & VM_FAULT_ERROR)


def _userfault(evidence: Evidence) -> bool:
    return evidence.plan.swap.kind is SwapKind.USERFAULT


def _repeated(evidence: Evidence, first: int) -> Iterator[tuple[Event, int]]:
    """Ends of calls that let go of mmap_lock, each with its page."""
    for call, event in _retried(evidence):
        if call.value & _WAITS and not call.value & _NEED_NOT:
            yield event, (call.hva >> 12) - first


def _retried(evidence: Evidence) -> Iterator[tuple[Event, Event]]:
    """Calls that are to be repeated, each with its end."""
    called: dict[int, Event] = {}
    for event in evidence.of(Kind.MM_FAULT, Kind.MM_FAULT_RET):
        if event.kind is Kind.MM_FAULT:
            called[event.tid] = event
        elif (call := called.pop(event.tid, None)) is not None and event.value & VmFault.RETRY:
            yield call, event
