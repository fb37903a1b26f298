# SPDX-License-Identifier: GPL-2.0-or-later
"""RET_PF_RETRY: what GUP found was not mapped, because something came between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.model.events import Kind
from harness.model.walk.steps import End

if TYPE_CHECKING:
    from harness.model.simulation.host_memory import Memory, Resolution
    from harness.model.simulation.recorded import Recorded, RecordedEvent
    from harness.model.simulation.world import World


def may_be_lost(
    world: World, memory: Memory, vcpu: int, gpa: int, got: Resolution, mark: RecordedEvent | None, *, guest_mode: bool
) -> None:
    """``got`` is stale where a notifier came between for certain.  Where one may have, or another vCPU's fault in the
    TDP MMU (page_tables.py), it is if the recording goes on as if nothing was mapped."""
    replay = world.replay
    if replay is None or mark is None or got.end is not End.MAPPED or got.stale:
        return
    if must_be_stale(replay.recorded, vcpu, gpa >> 12, mark):
        got.stale = True
        return
    since, until = min(mark.start_ns, mark.since_ns or mark.start_ns), mark.until_ns
    if replay.invalidated(vcpu, since, until) or memory.collides(
        gpa, replay.mapped_beside(vcpu, since, until), guest_mode=guest_mode, since_ns=since
    ):
        page = gpa >> 12
        likely = _faults_again(replay.recorded, page, until, writable=got.writable)
        got.stale = (replay.choices.ask(2, f"whether the mapping of {page:#x} was lost", page) == 1) is not likely


def must_be_stale(recorded: Recorded, vcpu: int, gfn: int, mark: RecordedEvent) -> bool:
    """A notifier began and ended between the first call of handle_mm_fault that the thread made for the page, which
    comes behind the look at mmu_invalidate_seq, and the end of the last, before is_page_fault_stale.

    :param mark: the page fault, or the ready event whose prefetch it is.
    """
    thread, until_ns = recorded.threads[vcpu], max(mark.until_ns, mark.end_ns)
    calls = (call for call in recorded.calls.get(gfn, ()) if call.thread == thread)
    own = [call for call in calls if mark.start_ns <= call.start_ns and call.end_ns <= until_ns]
    return any(own[0].start_ns <= i.start_ns and i.end_ns <= own[-1].end_ns for i in recorded.invalidations if own)


def _faults_again(recorded: Recorded, gfn: int, after_ns: int, *, writable: bool) -> bool:
    """Whether some vCPU faults on the page, at which it had a mapping if none was lost, before anything unmaps it.

    A vCPU that has sleepers to wake takes their interrupts first: its own fault on the page may come much later.
    """
    faults = (mark for marks in recorded.marks for mark in marks if mark.kind is Kind.PF and mark.key == gfn)
    again = (m.start_ns for m in faults if m.start_ns > after_ns and (writable or m.write is False))
    unmapped = (t for t in recorded.unmapped.get(gfn, ()) if t > after_ns)
    first = min(again, default=None)
    return first is not None and first < min(unmapped, default=first + 1)
