# SPDX-License-Identifier: GPL-2.0-or-later
"""mmap_lock of the VMM, which whoever waits for the read of a page has to let go of."""

from __future__ import annotations

from dataclasses import dataclass

from harness.contract.capture import AgentStep
from harness.contract.plan import Backing
from harness.contract.probe_abi import SECTORS_PER_PAGE
from harness.contract.words import EndStatus, HostWord
from harness.evidence.decode import Evidence
from harness.model.events import Kind
from harness.model.walk.flags import FaultFlag


@dataclass(slots=True)
class _Call:
    """A thread is in handle_mm_fault.  ``sectors``: what it has asked the pages' device for there."""

    flags: int
    sectors: int = 0


def kept_lock(evidence: Evidence) -> tuple[str, ...] | None:
    """Who finds the page that he wants being read comes back without it and without mmap_lock, and waits then (mm/
    filemap.c:__folio_lock_or_retry, lock_folio_maybe_drop_mmap; mm/gup.c:faultin_page has ``locked`` for it).  A
    writer of that lock is kept waiting otherwise, and all who fault behind him, for as long as the device takes.

    :return: in words, one where the host word change-mm was said, and did not come to its end; None: nobody can tell.
    """
    if evidence.lost:
        return None
    if evidence.end.status is not EndStatus.GUEST_TIMEOUT:
        return ()
    begun: list[float] = []
    for step in evidence.steps:
        if step.action is not None and step.action.do is HostWord.CHANGE_MM:
            begun = [step.mono] if step.step is AgentStep.HOST_ACTION else []
    if begun and (evidence.facts is None or not evidence.facts.has_mm_fault):
        return None
    return tuple(
        f"the VMM's mmap_lock was not to be had for writing while reads were held ({at:.3f} s)"
        for at in begun
        if not _may_be_kept(evidence, round(at * 1e9))
    )


def _may_be_kept(evidence: Evidence, at_ns: int) -> bool:
    """Whether some thread was in a call of handle_mm_fault then that keeps the lock while it waits: a second one
    (FAULT_FLAG_TRIED), one that may not let go of it, one that polls for the single page which it reads from swap
    (mm/page_io.c:swap_readpage, mm/memory.c:do_swap_page), or one that was not to wait, and reads a single page of a
    file (mm/filemap.c:maybe_unlock_mmap_for_io lets go for no FAULT_FLAG_RETRY_NOWAIT, filemap_read_folio waits)."""
    device = evidence.facts.swap_dev if evidence.facts is not None else 0
    on_swap = evidence.plan.memory.backing is not Backing.FILE
    inside: dict[int, _Call] = {}
    for event in evidence.events:
        if event.t_ns > at_ns:
            break
        if event.kind is Kind.MM_FAULT:
            inside[event.tid] = _Call(event.value)
        elif event.kind is Kind.MM_FAULT_RET:
            inside.pop(event.tid, None)
        elif event.kind is Kind.BIO and event.flag and event.dev == device and event.tid in inside:
            inside[event.tid].sectors += event.data
    return any(
        call.flags & (FaultFlag.ALLOW_RETRY | FaultFlag.TRIED) != FaultFlag.ALLOW_RETRY
        or (call.sectors == SECTORS_PER_PAGE and (on_swap or FaultFlag.RETRY_NOWAIT in FaultFlag(call.flags)))
        for call in inside.values()
    )
