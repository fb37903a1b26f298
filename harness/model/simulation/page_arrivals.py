# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that a thread of a recorded run was still about to add to the page cache, or the swap cache, when another
looked.

mm/readahead.c:page_cache_ra_unbounded adds folio after folio, each locked from then on, and submits them together only
when it comes to one that is cached, or to the end of its window; a folio without blocks is filled with zeros and
unlocked then.  How far it had come when another thread looked is in no event, but for what the trace has of its
reads.  Of swap (mm/swap_state.c:swap_vma_readahead, swap_cluster_readahead) each page is added and submitted by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from harness.model.pages import HostPage, Lock, SwapSlot
from harness.model.simulation.held_locks import let_go

if TYPE_CHECKING:
    from harness.model.simulation.host_memory import Memory


@dataclass(slots=True, eq=False)
class Arrival:
    """``page``: as it will be, locked by its read or filled with zeros; ``until_ns``: it is there by then.

    ``added``: a page behind it was there, so that it is in the cache, and locked at least; ``absent_ns``: when it was
    last looked for in vain.  ``rival``: the other thread whose window has it, which may have added it first, and then
    fills it with zeros, by ``rival_ns``.
    """

    page: HostPage
    thread: int
    until_ns: int
    added: bool = False
    absent_ns: int = -1
    rival: int = -1
    rival_ns: int = -1

    @property
    def filled(self) -> bool:
        """It has no blocks, so that nothing is read."""
        return self.page.folio is not None and self.page.folio.lock is Lock.NO


@dataclass(slots=True)
class PageArrivals:
    """By page number in the VMM: what is not in the page cache yet, for all that is known."""

    memory: Memory
    coming: dict[int, Arrival] = field(default_factory=dict)

    def bring(self, page: HostPage) -> None:
        """The running thread's window has this page, which becomes as it is here: at once, unless another thread was in
        handle_mm_fault before it must have been there."""
        before, until_ns = self.coming.pop(page.vpn, None), self._until(page)
        if until_ns < 0 or self.memory.watch is None:
            self._put(page, self._submitted(page))
            return
        arrival = Arrival(page, self.memory.watch.thread, until_ns)
        if before is not None:  # of both windows: who adds it first says whether it has PG_readahead
            self._counted_twice(page)
            arrival.page = page if self._overtakes(before, page) else before.page
            arrival.rival, arrival.rival_ns = before.thread, before.until_ns
            if before.until_ns < until_ns:
                arrival.thread, arrival.rival = arrival.rival, arrival.thread
                arrival.until_ns, arrival.rival_ns = before.until_ns, until_ns
        self._expect(arrival)

    def added_by_itself(self, vpn: int) -> None:
        """The running thread has added its own page, which another was about to."""
        arrival = self.coming.pop(vpn, None)
        if arrival is not None:
            self._counted_twice(arrival.page)

    def _counted_twice(self, page: HostPage) -> None:
        """Of two windows: one thread finds it in the swap cache (mm/swap_state.c:__read_swap_cache_async)."""
        if page.swap is not None:
            self.memory.world.count("RA", -1)
            self.memory.world.count("SWPIN_ZERO", -1)

    def _expect(self, arrival: Arrival) -> None:
        self.coming[arrival.page.vpn] = arrival
        self.memory.world.engine.at(arrival.until_ns, partial(self._due, arrival))

    def _until(self, page: HostPage) -> int:
        """When the running thread had this page of its window in the cache, at the latest; -1: at once.

        It is read by the time of its bio, and filled with zeros by the end of the call.
        """
        replay, watch, now = self.memory.world.replay, self.memory.watch, self.memory.world.engine.now
        window = watch.window if watch else None
        if replay is None or watch is None or window is None or page.folio is None:
            return -1
        if page.index == watch.added:  # now
            return -1
        until = window.end_ns
        if page.folio.lock is not Lock.NO:
            until = replay.own_read(page.index, watch.thread, now, window.end_ns)
        return until if until > now and replay.called_beside(watch.thread, now, until) else -1

    def put_slot(self, vpn: int, swap: SwapSlot) -> None:
        """What is known of the page's slot, also of one that has still to come."""
        self.memory.pages[vpn] = replace(self.memory.pages[vpn], swap=swap)
        if vpn in self.coming:
            self.coming[vpn].page = replace(self.coming[vpn].page, swap=swap)

    def final(self, vpn: int) -> HostPage:
        """The page as it will be when it has come."""
        arrival = self.coming.get(vpn)
        return arrival.page if arrival else self.memory.pages[vpn]

    def read(self, vpn: int) -> bool:
        """It is about to be added by another thread than the one that runs, which reads it."""
        arrival = self._of_another(vpn)
        return arrival is not None and not arrival.filled

    def added(self, vpn: int) -> bool:
        """It is in the cache, and locked until it is filled."""
        return vpn in self.coming and self.coming[vpn].added

    def look(self, vpn: int, *, again: bool = False) -> HostPage:
        """The page as the running thread finds it in the cache: as it will be, or locked, or not there.

        ``again``: it has looked before, in the same call of handle_mm_fault.
        """
        arrival = self._of_another(vpn)
        if arrival is None or arrival.absent_ns == self.memory.world.engine.now:
            return self.memory.pages[vpn]
        ways = ["there", *(["locked"] if arrival.filled else [])]
        if not arrival.added:
            ways.insert(0 if self._missed() and not again else len(ways), "missing")
        self._settle(arrival, ways)
        return self.memory.pages[vpn]

    def pass_by(self, vpn: int) -> None:
        """The running thread maps what is ready around its page: whether this one was, if it is to be filled."""
        arrival = self._of_another(vpn)
        if arrival is not None and arrival.filled and arrival.absent_ns != self.memory.world.engine.now:
            self._settle(arrival, ["there", "missing"])

    def hurry(self, vpn: int) -> None:
        """It comes when the running thread has been held up, which is now."""
        self.memory.world.engine.at(self.memory.world.engine.now, partial(self._due, self.coming[vpn]))

    def _missed(self) -> bool:
        """The running thread's call counted a major fault, as one does that misses its page (mm/filemap.c)."""
        window = self.memory.watch.window if self.memory.watch else None
        return window is not None and window.major

    def _come(self, vpn: int) -> None:
        arrival = self.coming.pop(vpn)
        self._behind(arrival)
        self._put(arrival.page, arrival.until_ns)

    def _put(self, page: HostPage, submitted_ns: int) -> None:
        """It is in the cache.  One of swap has PG_readahead only when its read is submitted (mm/swap_state.c:
        swap_cluster_readahead, swap_vma_readahead): who finds it before has no hit."""
        early = page.swap is not None and page.locked and self.memory.world.engine.now < submitted_ns
        if early and page.folio is not None and page.folio.readahead:
            self.memory.pages[page.vpn] = replace(page, folio=replace(page.folio, readahead=False))
            self.memory.world.engine.at(submitted_ns, partial(self._flag, page.vpn))
        else:
            self.memory.pages[page.vpn] = page

    def _flag(self, vpn: int) -> None:
        page = self.memory.pages[vpn]
        if page.folio is not None:
            self.memory.pages[vpn] = replace(page, folio=replace(page.folio, readahead=True))

    def _submitted(self, page: HostPage) -> int:
        """When the running thread submits a page of its window that it has in the cache by now; -1: at once."""
        replay, watch = self.memory.world.replay, self.memory.watch
        if replay is None or watch is None or watch.window is None:
            return -1
        return replay.own_read(page.index, watch.thread, self.memory.world.engine.now, watch.window.end_ns)

    def _overtakes(self, before: Arrival, page: HostPage) -> bool:
        replay = self.memory.world.replay
        if replay is None or before.page.folio == page.folio:
            return False
        why = f"which of two threads added {page.index:#x} first"
        return (replay.choices.ask(2, why, page.index) == 1) is (before.absent_ns < 0)

    def _of_another(self, vpn: int) -> Arrival | None:
        arrival, watch = self.coming.get(vpn), self.memory.watch
        return arrival if arrival and watch and arrival.thread != watch.thread else None

    def _settle(self, arrival: Arrival, ways: list[str]) -> None:
        replay, page = self.memory.world.replay, arrival.page
        why = f"how far another thread's read-ahead had come with {page.index:#x}"
        way = ways[replay.choices.ask(len(ways), why, page.index)] if replay else "there"
        if way == "missing":  # and so is what comes behind it; locked, and no mapping of it, if it was added
            arrival.absent_ns = self.memory.world.engine.now
            for other in self.coming.values():
                if not arrival.added and other.thread == arrival.thread and other.page.index >= page.index:
                    other.absent_ns = self.memory.world.engine.now
            return
        self._come(page.vpn)
        if way == "locked" and page.folio is not None:
            self.memory.pages[page.vpn] = replace(page, folio=replace(page.folio, lock=Lock.OTHER))
            self.memory.world.engine.spawn(let_go(self.memory, page.vpn, self._unlocked_ns(arrival)))

    def _unlocked_ns(self, arrival: Arrival) -> int:
        """When it is filled: with what is submitted before the end of the call, or then."""
        replay, page, now = self.memory.world.replay, arrival.page, self.memory.world.engine.now
        if replay is None or self.memory.watch is None:
            return arrival.until_ns
        found = replay.finds_it(page.index, self.memory.watch.thread, now, arrival.until_ns)
        why = f"when another thread had filled {page.index:#x}"
        return replay.choices.moment([*(t - 1 for t in found), arrival.until_ns], why, page.index)

    def _behind(self, arrival: Arrival) -> None:
        """What comes before this page in its window was added before it."""
        for other in [a for a in self.coming.values() if a.thread == arrival.thread]:
            if other.page.index < arrival.page.index:
                other.added = True
                if not other.filled:
                    self._put(self.coming.pop(other.page.vpn).page, other.until_ns)

    def _due(self, arrival: Arrival) -> None:
        """Its bio is submitted, or its thread's call over: also what was to be filled before it is."""
        before = [a for a in self.coming.values() if a.thread == arrival.thread and a.page.index < arrival.page.index]
        for one in (*before, arrival):
            if self.coming.get(one.page.vpn) is not one:
                continue
            if one.rival < 0:
                self._come(one.page.vpn)
            else:
                self._behind(one)
                self._expect(Arrival(one.page, one.rival, one.rival_ns, added=True))
