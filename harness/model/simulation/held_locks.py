# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks of pages in a recorded run that another thread has for a moment, of which no event tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.model.pages import HostPage, Lock, unlocked
from harness.model.simulation.engine import Process, Wait

if TYPE_CHECKING:
    from harness.model.simulation.followed_threads import FollowedThreads
    from harness.model.simulation.host_memory import Memory


def let_go(memory: Memory, vpn: int, until_ns: int) -> Process:
    """Another thread has the lock of the page until then."""
    yield Wait(until_ns=until_ns)
    page = memory.pages[vpn]
    if page.folio is not None and page.folio.lock is Lock.OTHER:
        memory.pages[vpn] = unlocked(page)
    memory.world.engine.fire(memory.signals[vpn])


@dataclass(frozen=True, slots=True)
class HeldLocks:
    """The questions of a walk that tries the lock of a page; ``threads`` knows who maps a page with which."""

    threads: FollowedThreads

    def contended(self, page: HostPage) -> bool:
        """Whether another thread that was in handle_mm_fault for the page held its lock when this one tried it."""
        memory = self.threads.memory
        replay, watch, now = memory.world.replay, memory.watch, memory.world.engine.now
        if replay is None or watch is None:
            return False
        own = watch.window
        missed = own is not None and own.missed
        slept = own is not None and own.slept and not own.major  # else for its own read
        until = replay.other_call_ends(page.index, watch.thread, now)
        if until < 0 and missed:  # one that maps it around its own holds it, too (mm/filemap.c:next_uptodate_folio)
            until = replay.maps_around_until(self.threads.mapped_with(page.index), watch.thread, now)
        if until < 0:
            return False
        if not replay.choices.maybe(
            f"whether another thread held the lock of {page.index:#x}", page.index, likely=missed or slept
        ):
            return False
        # At the end of its call at the latest: who comes before that, and is not told to retry, mostly found it free.
        before = [t - 1 for t in replay.finds_it(page.index, watch.thread, now, until)]
        if own is not None and now < own.woke_ns <= until:  # it has slept for that lock, if for any
            before = [own.woke_ns - 1, *before]
        why = f"when another thread gave the lock of {page.index:#x} back"
        until = replay.choices.moment([*before, until], why, page.index)
        memory.world.engine.spawn(let_go(memory, page.vpn, until))
        return True

    def passed_by(self, page: HostPage) -> bool:
        """The same of a page that the running thread maps around its own, for which it waits for nobody.

        Of another that is mapping it around its own, a call for it that was made meanwhile tells: it would have been
        mapped by now (mm/filemap.c:filemap_map_pages has one page's lock at a time).
        """
        memory = self.threads.memory
        replay, watch, now = memory.world.replay, memory.watch, memory.world.engine.now
        if replay is None or watch is None or page.index not in memory.gfn_to_vpn:
            return False
        if replay.other_call_ends(page.index, watch.thread, now) < 0:
            until = replay.maps_around_until(self.threads.mapped_with(page.index), watch.thread, now)
            if not any(now < call.start_ns < until for call in replay.recorded.calls.get(page.index, ())):
                return False
        why = f"whether another thread held the lock of {page.index:#x}, beside"
        return replay.choices.maybe(why, page.index, likely=False)
