# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of a recorded run that a thread fills with zeros, or finds: no bio tells when, and who came before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.model.pages import Backing, HostPage
from harness.model.simulation.recorded import Recorded

if TYPE_CHECKING:
    from harness.model.simulation.followed_threads import FollowedThreads


@dataclass(frozen=True, slots=True)
class FilledPages:
    """The questions of a walk about a page that the running thread has filled, or found; ``threads`` is told when it
    goes on."""

    threads: FollowedThreads

    def fills_late(self, page: HostPage) -> bool:
        """Whether others came while the page was in the cache, and locked."""
        memory = self.threads.memory
        replay, watch, now = memory.world.replay, memory.watch, memory.world.engine.now
        window = watch.window if watch else None
        if replay is None or watch is None or window is None:
            return False
        ends = replay.cuts(page.index, watch.thread, now, window.end_ns)
        answer = replay.choices.ask(len(ends) + 1, f"when {page.index:#x} was filled with zeros", page.index)
        if answer:
            self.threads.resumes_ns = ends[answer - 1] - 1  # before another came back from it
        return answer > 0

    def maps_late(self, page: HostPage, found: bool) -> bool:
        """Whether others mapped the page, with one of their own, before the running thread locked it, which had still
        to submit the rest of its window (mm/readahead.c:page_cache_ra_unbounded).

        ``found``: it has found the page in the cache, so that nothing lies between: it lost its processor there only
        where its call came to nothing, and it called again (mm/memory.c:finish_fault: the PTE has changed).
        """
        memory = self.threads.memory
        replay, watch, now = memory.world.replay, memory.watch, memory.world.engine.now
        window = watch.window if watch else None
        if replay is None or watch is None or window is None:
            return False
        in_vain = watch.calls_again and not window.missed
        # Who asks the file system finds the PTE changed behind that (FollowedThreads.mapped).
        asks = page.vma.backing is Backing.FILE_SHARED and page.vma.page_mkwrite
        if found and (asks or not in_vain):
            return False
        ends = replay.cuts(page.index, watch.thread, now, window.end_ns, self.threads.mapped_with(page.index))
        moments = [-1, *(end + 1 for end in ends)]
        if in_vain:  # most likely then: it has found the PTE changed
            moments.reverse()
        why = f"whether others mapped {page.index:#x} before it was locked"
        self.threads.resumes_ns = moments[replay.choices.ask(len(moments), why, page.index)]
        return self.threads.resumes_ns >= 0


def added_with_others(recorded: Recorded, gfn: int, thread: int, start_ns: int, end_ns: int) -> bool:
    """Whether another thread was about to submit a bio between the two that goes over this page, which has no blocks:
    it adds page after page (mm/readahead.c:page_cache_ra_unbounded), this one before those behind."""
    bios = ((reader, at, gfns) for (reader, at), gfns in recorded.brought.items() if at >= start_ns)
    over = ((reader, at, max(gfns)) for reader, at, gfns in bios if reader != thread and min(gfns) < gfn < max(gfns))
    return any(
        read.thread == reader and read.end_ns == at and read.start_ns <= end_ns
        for reader, at, last in over
        for read in recorded.reads.get(last, ())
    )
