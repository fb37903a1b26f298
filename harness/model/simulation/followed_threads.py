# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads of a recorded run in the host's memory: when each looked at a page, and what others did just then.

Only a page's lock, its place in the cache and times are read from the recording; what a thread finds follows.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from harness.model.pages import (
    Backing,
    HostPage,
    Lock,
    Pte,
    asks_the_file_system,
    makes_its_own,
    next_uptodate_folio,
    to_be_read,
)
from harness.model.readahead import ReadaheadState, fault_around_range
from harness.model.simulation.engine import Wait
from harness.model.simulation.filled_pages import FilledPages, added_with_others
from harness.model.simulation.held_locks import HeldLocks
from harness.model.simulation.page_watch import PageWatch, WindowChoice
from harness.model.simulation.pte_prefetch import prefetched_with
from harness.model.simulation.recorded import FaultCall
from harness.model.walk.flags import VM_FAULT_ERROR, VmFault
from harness.model.walk.steps import Environment
from harness.model.walk.write_protect import userfault_missing

if TYPE_CHECKING:
    from harness.model.simulation.host_memory import Memory
    from harness.model.simulation.replay import Replay


_SWAP_WORDS = ("hits", "prev_offset", "last_window", "vma_addr", "vma_window", "vma_hits")


def _swap_words(state: ReadaheadState) -> dict[str, int]:
    return {word: getattr(state, word) for word in _SWAP_WORDS}


@dataclass(slots=True)
class FollowedThreads:
    """The questions of a walk that the recording answers, or leaves open; ``resumes_ns``: until when, of the last."""

    memory: Memory
    resumes_ns: int = 0
    _chosen: WindowChoice | None = None
    _filled: dict[tuple[int, int, int], bool] = field(default_factory=dict)  # by thread, begin of its call, page

    def answering(self, env: Environment) -> Environment:
        """The surroundings of walks that ask here."""
        filled, locks = FilledPages(self), HeldLocks(self)
        return replace(
            env,
            held_up=self.held_up, chooses_late=self.chooses_late, chooses_early=self.chooses_early,
            chosen_around=self.chosen_around, submits=self.submits, fills_late=filled.fills_late,
            maps_late=filled.maps_late, taken=self.taken, finished=self.finished, refused=self.refused,
            asks_late=self.asks_late, contended=locks.contended, passed_by=locks.passed_by, paced=True,
            came_back=self.came_back,
        )  # fmt: skip

    def through(self, watch: PageWatch | None, gpa: int) -> None:
        """A thread has done with a page: calls of handle_mm_fault that were recorded, and not made, are strays."""
        if watch is not None:
            self.strays(max(0, len(watch.windows) - 1 - watch.at), gpa)

    def strays(self, number: int, gpa: int) -> None:
        """So many calls of handle_mm_fault for the page are not accounted for."""
        if (replay := self.memory.world.replay) is not None:
            replay.strays += [gpa >> 12] * number

    def paced(self, watch: PageWatch, gpa: int, *, inside: bool, slept: bool | None) -> None:
        """A call of handle_mm_fault begins (``inside``), or ends.  One in which the thread ``slept`` as the recorded
        did not, or the other way round, is another's; None: whether that slept was not recorded.

        One that has read other pages than the recorded had another window.
        """
        if inside:
            watch.at += 1
            self.strays(int(watch.window is None), gpa)
        elif watch.window is not None and slept is not None:
            self.strays(int(watch.window.slept is not slept), gpa)
        if inside:
            watch.begins_call()
        else:
            self.returned(watch, gpa)

    def came_back(self, page: HostPage, ret: VmFault) -> None:
        """A call of handle_mm_fault returned: one that did so otherwise than the recorded is another's."""
        call = self.memory.watch.window if self.memory.watch is not None else None
        told = VmFault.RETRY in ret, VmFault.MAJOR in ret, bool(ret & VM_FAULT_ERROR)
        if call is not None and told != (call.retried, call.major, call.failed):
            self.strays(1, page.index << 12)

    def returned(self, watch: PageWatch, gpa: int) -> None:
        """A call of handle_mm_fault is over.  One that has read other pages than the recorded had another window."""
        replay = self.memory.world.replay
        if replay is None or watch.window is None or not self._bios_tell:
            return
        if watch.read & self.memory.gfn_to_vpn.keys() != self._read_in(watch.thread, watch.window):
            replay.misread.append((self.memory.world.engine.now, gpa >> 12, len(replay.choices.asked)))

    @property
    def _bios_tell(self) -> bool:  # which pages are read: each was recorded, and where pages are on the device is known
        situation = self.memory.world.situation
        return situation.device.issues_bios and (situation.ram_file is not None or situation.swap_offsets_known)

    def _read_in(self, thread: int, call: FaultCall) -> Set[int]:
        """Planned pages that the thread was seen to submit in a call of handle_mm_fault."""
        replay = self.memory.world.replay
        found = replay.read_within(thread, call.start_ns, call.end_ns) if replay else set()
        return found & self.memory.gfn_to_vpn.keys()

    def moment(self, watch: PageWatch, gfn: int, *, inside: bool) -> Generator[Wait, None, None]:
        """Let the time come at which the thread looked at the page.

        It is known up to the thread's stay in handle_mm_fault; where another changed the page meanwhile, both orders
        are possible.
        """
        replay, now = self.memory.world.replay, self.memory.world.engine.now
        if replay is None:
            return
        if not inside and (watch.calls_again or watch.at_the_end):
            yield Wait(until_ns=replay.recorded.end_ns if watch.at_the_end else max(now, watch.since_ns))
            return
        window = watch.window if inside else None
        earliest = max(now, window.start_ns if window else watch.since_ns)
        around, page = self.mapped_with(gfn), self.memory.page(gfn << 12)
        if page.hole and page.folio is None:  # no bio tells when the read-around of a neighbour filled it
            reach = self.memory.env.ra_pages
            around |= set(range(gfn - reach, gfn + reach))
        cuts = replay.cuts(gfn, watch.thread, earliest, window.end_ns if window else watch.end_ns, around)
        moments = [earliest, *(cut + 1 for cut in cuts)]
        last = watch.window
        # Else the page would not be as it wants it.
        called_nobody = not inside and (last is None or last.retried or watch.overtaken)
        waited_for_nobody = inside and page.locked and last is not None and not (last.missed or last.slept)
        told = last is not None and last.asked and userfault_missing(page)  # and slept until it was copied, if it may
        found_it = inside and last is not None and not (last.major or told) and to_be_read(page)
        if found_it and last is not None and replay.others_read(gfn, watch.thread, earliest, last.end_ns):
            moments.append(max(moments[-1], last.end_ns - 1))  # it was in the cache by then, and submitted only later
        beside: dict[int, list[FaultCall]] = {}
        if window is not None:
            beside = {n: replay.calls_within(n, watch.thread, earliest, window.end_ns) for n in around - {gfn}}
        known = self.memory.gfn_to_vpn  # what another calls for to read it is not mapped by then (do_wp_page: to write)
        read = {n for n, made in beside.items() if any(not call.writes for call in made)}
        asked = [self.memory.page(n << 12) for n in sorted(read & known.keys())]
        not_yet = (
            window is not None
            and not window.writes
            and any(p.pte is Pte.NONE and next_uptodate_folio(p) for p in asked)
        )
        if called_nobody or waited_for_nobody or found_it or not_yet:
            moments.reverse()  # likeliest behind the last change
        if window is not None and page.in_swap_cache:  # a hit changes what read-ahead remembers, behind others?
            chosen = replay.windows_before_own(watch.thread, earliest, window.end_ns)
            moments += sorted({at + 1 for at in chosen} - set(moments))
        if window is not None and window.slept and not page.locked:  # for one that came later, and had the lock first
            later = replay.calls_within(gfn, watch.thread, earliest, window.end_ns)
            moments += sorted({call.start_ns + 1 for call in later} - set(moments))
        if window is not None:  # whoever calls for a neighbour has missed it a moment ago
            moments += sorted({call.start_ns + 1 for calls in beside.values() for call in calls} - set(moments))
        yield Wait(until_ns=replay.choices.moment(moments, f"when the page {gfn:#x} was looked at", gfn))

    def wakes(self, watch: PageWatch, gfn: int) -> Generator[Wait, None, None]:
        """Let the time come at which a thread that slept for the page runs again: others may have had it before."""
        replay, window, now = self.memory.world.replay, watch.window, self.memory.world.engine.now
        if replay is None or window is None:
            return
        cuts = replay.cuts(gfn, watch.thread, now, window.end_ns - 1)
        moments = [now, *(cut + 1 for cut in cuts)]
        if replay.other_call_ends(gfn, watch.thread, now) >= 0 and moments[-1] < window.end_ns - 1:
            moments.append(window.end_ns - 1)  # whoever woke at the same time may be first
        if window.woke_ns >= now:  # most likely then
            moments = [window.woke_ns, *(m for m in moments if m != window.woke_ns)]
        yield Wait(until_ns=replay.choices.moment(moments, f"when who slept for {gfn:#x} ran again", gfn))

    def mapped(self, watch: PageWatch, vpn: int, before: HostPage) -> Generator[Wait, None, None]:
        """Let the time come at which the running thread's call of handle_mm_fault mapped the page, which it has done in
        the model already.

        Until then it holds the lock of the page (mm/memory.c:do_swap_page, do_shared_fault), which others find in the
        cache: what it takes between, such as a file system's page_mkwrite, may be long.  Or it has unlocked it for
        page_mkwrite, and another maps it for reading: finish_fault finds the PTE changed, and it calls again.  A page
        that it zeroes or copies nobody sees until then."""
        replay, window, now = self.memory.world.replay, watch.window, self.memory.world.engine.now
        done = self.memory.pages[vpn]
        if replay is None or window is None or done.folio is None or done.folio.lock is not Lock.NO:
            return
        beside = replay.calls_beside(self.mapped_with(done.index), watch.thread, now, window.end_ns)
        found_fast = replay.mapped_beside(self.memory.running, now, window.end_ns)  # by GUP-fast, which calls nobody
        if not beside and found_fast.isdisjoint(prefetched_with(self.memory, done.index)):
            return
        unseen = makes_its_own(done, before)
        ways = [None, Lock.NO if unseen else Lock.OTHER]
        if not unseen and asks_the_file_system(done, before):
            # One that calls again, and was not told to (VM_FAULT_RETRY), has found the PTE changed.
            ways.insert(0 if watch.calls_again and not window.retried else len(ways), Lock.NO)
        other = next(iter(replay.calls_within(done.index, watch.thread, now, window.end_ns)), None)
        if other is not None:  # it found the PTE as it was, and waited for the lock or not
            likely = Lock.OTHER if other.slept or other.missed or Lock.NO not in ways else Lock.NO
            ways.sort(key=lambda way: way is not likely)
        why = f"whether another came before {done.index:#x} was mapped"
        lock = ways[replay.choices.ask(len(ways), why, done.index)]
        if lock is None:
            return
        self.memory.pages[vpn] = (
            before if unseen else replace(done, pte=before.pte, swap=before.swap, folio=replace(done.folio, lock=lock))
        )
        until = window.end_ns
        if lock is Lock.OTHER:  # it may be preempted between that and the end of its call, too
            before_end = [t - 1 for t in replay.finds_it(done.index, watch.thread, now, until)]
            until = replay.choices.moment([*before_end, until], f"when {done.index:#x} was mapped", done.index)
        yield Wait(until_ns=until)
        page = self.memory.pages[vpn]
        if lock is Lock.NO:  # pte_same, or finish_fault: another's mapping stays
            watch.overtaken = page.pte is not before.pte
            if not watch.overtaken:
                self.memory.pages[vpn] = done if unseen else replace(page, pte=done.pte)
        elif page.folio is not None and page.folio.lock is lock:
            self.memory.pages[vpn] = replace(
                page, pte=done.pte, swap=done.swap, folio=replace(page.folio, lock=Lock.NO)
            )
        self.memory.world.engine.fire(self.memory.signals[vpn])

    def unmaps(self, watch: PageWatch | None, gfn: int) -> Generator[Wait, None, None]:
        """Let the time come at which the notifier of the running thread's copy takes the page from the guest.

        What the recording has is its begin; it may wait for the lock of KVM's MMU, and for the vCPUs to leave the guest
        (virt/kvm/kvm_main.c:__kvm_handle_hva_range, kvm_flush_remote_tlbs).  Until then others use the mapping, and no
        event tells of it.
        """
        replay, now = self.memory.world.replay, self.memory.world.engine.now
        if replay is None or watch is None or watch.window is None or len(replay.recorded.marks) < 2:
            return
        end_ns = watch.window.end_ns - 1
        if end_ns > now:
            called = [call.start_ns - 1 for call in replay.calls_within(gfn, watch.thread, now, end_ns)]
            moments = [now, *called, end_ns]
            yield Wait(until_ns=replay.choices.moment(moments, f"when {gfn:#x} was taken from the guest", gfn))

    def mapped_with(self, gfn: int) -> set[int]:
        """Guest pages whose faults may map this one: itself, and those of its block (do_fault_around)."""
        page = self.memory.page(gfn << 12)
        if page.vma.backing is Backing.ANON:
            return {gfn}
        block = fault_around_range(page.vpn, vma_start=page.vma.start, vma_end=page.vma.end)
        return {gfn} | {self.memory.pages[vpn].index for vpn in block if vpn in self.memory.pages}

    def held_up(self, page: HostPage, unit: str = "", pages: tuple[int, ...] = ()) -> bool:
        """As _held_up, and until when."""
        found = self._held_up(page, unit, pages)
        if self.memory.watch is not None:
            self.memory.watch.held_until_ns = self.resumes_ns
        return found

    def _held_up(self, page: HostPage, unit: str, pages: tuple[int, ...]) -> bool:
        """Whether others may have come between the running thread's look at the page and its read of it.

        ``pages``: the window that it has chosen, by ``unit``: what others read of it meanwhile, it does not read.

        If it has read it, that was recorded, and it had put the page into the cache at some time before; else another
        thread may have read it.  Both orders are possible.
        """
        replay, watch, now = self.memory.world.replay, self.memory.watch, self.memory.world.engine.now
        window = watch.window if watch else None
        if replay is None or watch is None or window is None:
            return False
        if self.memory.arrivals.read(page.vpn):  # another adds it before this thread comes to it
            self.memory.arrivals.hurry(page.vpn)
            self.resumes_ns = now
            return True
        own = replay.own_read(page.index, watch.thread, now, window.end_ns)
        if own < 0 and watch.at_the_end:
            self.resumes_ns = window.end_ns
            return True
        if own >= 0:
            self.resumes_ns = own
            why = f"whether others came before {page.index:#x} was in the cache"
            window_pages = (self.memory.pages[vpn].index for vpn in self.memory.vpns(unit, pages))
            brought = replay.brought_with(watch.thread, own) | {page.index, *window_pages}
            beside = any(replay.others_at(index, watch.thread, now, own) for index in brought)
            missed_too = any(
                call.major and replay.own_read(index, call.thread, call.start_ns, call.end_ns) < 0
                for index in brought
                for call in replay.calls_within(index, watch.thread, now, own)
            )
            likely = missed_too or any(self.taken(unit, number) for number in pages)
            if not beside or not replay.choices.maybe(why, page.index, likely=likely):
                return False
            # Others may have missed it too, and have found it before they came back: it was submitted only later.
            back = [at - 2 for at in replay.cuts(page.index, watch.thread, now, own - 1)]
            why = f"when {page.index:#x} was in the cache, before it was read"
            self.resumes_ns = [own, *back][replay.choices.ask(1 + len(back), why, page.index)]
            return True
        # What is filled with zeros is read by nobody: others may have come for any page of the window.
        chosen = [self.memory.pages[vpn].index for vpn in self.memory.vpns(unit, pages)]
        others = replay.cuts(page.index, watch.thread, now, window.end_ns, around=chosen)
        about = replay.others_read if not page.hole else replay.others_at  # of a hole no bio tells
        if not others and about(page.index, watch.thread, now, window.end_ns):
            # It was in the cache by then, or by the thread's first read of what is behind it, and submitted only later.
            ends = {window.end_ns - 1, replay.first_read(watch.thread, now, window.end_ns) - 1} - {-2}
            others = sorted(ends, reverse=page.swap is not None)  # swap: page after page, each by itself
        why = f"whether another thread read {page.index:#x} first"
        likely = replay.others_read(page.index, watch.thread, now, window.end_ns)
        # Most likely behind the read itself, and not behind a call that missed the page.
        others.sort(key=lambda at: not replay.read_at(page.index, at))
        moments = [other + 1 for other in others]
        if page.hole:  # others may have missed it too before this one adds it, and it may find it locked by them
            calls = replay.calls_within(page.index, watch.thread, now, window.end_ns)
            missed = [call.start_ns for call in calls if call.major]
            moments = [*(other + 1 for other in missed), *(other - 1 for other in others), *moments]
            likely = likely or bool(missed) or (bool(others) and window.major and window.retried)
        if likely:
            moments.append(-1)  # it has not read the page, and another has, or has missed it too: most likely so
        else:
            moments.insert(0, -1)
        if page.hole:
            read = replay.first_read(watch.thread, now, window.end_ns)
            if read >= 0:  # most likely it has brought its whole window by then
                moments.sort(key=lambda moment: (moment >= read, moment >= 0))
            moments[:0] = [over + 1 for over in replay.read_over(page.index, watch.thread, now, window.end_ns)]
        self.resumes_ns = moments[replay.choices.ask(len(moments), why, page.index)]
        return self.resumes_ns >= 0

    def chose(self, now: ReadaheadState) -> None:
        """The running thread has changed what read-ahead remembers."""
        watch, before = self.memory.watch, self.memory.readahead
        if watch is not None and watch.window is not None and _swap_words(now) != _swap_words(before):
            self._chosen = WindowChoice(watch.thread, watch.window.start_ns, watch.window.end_ns, before)

    def remembered(self, page: HostPage) -> ReadaheadState:
        """What read-ahead remembers as the running thread reads it: mm/swap_state.c:swapin_nr_pages reads its words and
        writes them one by one, so that of two threads in it at once neither need see what the other writes.  But the
        hits of clusters, which are of all threads, it takes with atomic_xchg: only one of the two has them."""
        replay, watch, last = self.memory.world.replay, self.memory.watch, self._chosen
        window = watch.window if watch else None
        if replay is None or watch is None or window is None or last is None or not to_be_read(page):
            return self.memory.readahead
        beside = last.thread != watch.thread and last.start_ns < window.end_ns and window.start_ns < last.end_ns
        why = f"whether the window of {page.index:#x} was chosen while another was"
        if not beside or page.swap is None or not replay.choices.maybe(why, page.index):
            return self.memory.readahead
        return replace(self.memory.readahead, **_swap_words(last.before) | {"hits": self.memory.readahead.hits})

    def chooses_late(self, page: HostPage) -> bool:
        """Whether the running thread chose its window only when others had read: the words that read-ahead remembers
        are of all threads."""
        replay, watch, now = self.memory.world.replay, self.memory.watch, self.memory.world.engine.now
        window = watch.window if watch else None
        if replay is None or watch is None or window is None:
            return False
        own = replay.own_read(page.index, watch.thread, now, window.end_ns)
        zero = page.swap is not None and page.swap.zero and window.major
        if zero:  # it is read by nobody (mm/page_io.c:swap_read_folio_zeromap), but its neighbours may be
            own = replay.first_read(watch.thread, now, window.end_ns)
        between = [at + 1 for at in replay.windows_before_own(watch.thread, now, window.end_ns)]
        if own < 0 and not zero:
            if not replay.others_read(page.index, watch.thread, now, window.end_ns):
                return False
            latest = [read + 1 for read in replay.cuts(page.index, watch.thread, now, window.end_ns)]
        elif between or (own >= 0 and replay.reads_beside(watch.thread, now, own)):
            latest = [own] if own >= 0 else []
        else:
            return False
        # Or behind any of the windows that others chose before its own first read.
        moments = [-1, *latest, *(moment for moment in between if moment not in latest)]
        why = f"when the window of {page.index:#x} was chosen"
        self.resumes_ns = moments[replay.choices.ask(len(moments), why, page.index)]
        return self.resumes_ns >= 0

    def submits(self, unit: str, pages: Collection[int]) -> int | None:
        """The next page of the window that the running thread, which is held up, submits to be read, and ``resumes_ns``
        is when: mm/swap_state.c:swap_cluster_readahead takes page after page.  None: it goes on with its own."""
        replay, watch, now = self.memory.world.replay, self.memory.watch, self.memory.world.engine.now
        if replay is None or watch is None:
            return None
        self.resumes_ns = watch.held_until_ns
        end_ns = watch.window.end_ns if watch.window else watch.held_until_ns - 1
        numbers = {n: self.memory.pages[vpn].index for n in pages for vpn in self.memory.vpns(unit, (n,))}
        reads = [(replay.own_read(i, watch.thread, now, end_ns), n) for n, i in numbers.items()]
        first = min((each for each in reads if each[0] >= 0), default=None)
        if first is None:
            return None
        self.resumes_ns = min(watch.held_until_ns, self._added(replay, watch, numbers[first[1]], first[0]))
        if self.resumes_ns >= watch.held_until_ns:
            return None
        watch.added = numbers[first[1]]
        return first[1]

    def _added(self, replay: Replay, watch: PageWatch, gfn: int, read_ns: int) -> int:
        """When the thread put a page of its window into the cache that it submitted at ``read_ns``: others may have
        found it there before."""
        now, thread = self.memory.world.engine.now, watch.thread
        back = [at - 2 for at in replay.cuts(gfn, thread, now, read_ns - 1) if at - 2 >= now]
        calls = replay.calls_within(gfn, thread, now, read_ns)
        found = any(c.retried and replay.own_read(gfn, c.thread, c.start_ns, c.end_ns) < 0 for c in calls)
        moments = [*back, read_ns] if found else [read_ns, *back]
        return replay.choices.moment(moments, f"when {gfn:#x} was in the cache, before it was read", gfn)

    def chooses_early(self, page: HostPage) -> bool:
        """Whether the running thread, which is held up until others have read the page, had chosen its window of the
        file before (mm/filemap.c:do_sync_mmap_readahead writes struct file_ra_state, which is of all threads)."""
        replay, watch, now = self.memory.world.replay, self.memory.watch, self.memory.world.engine.now
        if replay is None or watch is None or not replay.reads_beside(watch.thread, now, self.resumes_ns):
            return False
        call = watch.window
        # Who finds the page reads nothing.
        likely = call is not None and replay.first_read(watch.thread, call.start_ns, call.end_ns) >= 0
        why = f"whether the window of {page.index:#x} was chosen first"
        return replay.choices.maybe(why, page.index, likely=likely)

    def chosen_around(self, page: HostPage, window: Collection[int]) -> int:
        """The page of the file around which the window was chosen that the running thread reads, which has chosen
        ``window`` around its own (mm/filemap.c:do_sync_mmap_readahead; struct file_ra_state has no lock)."""
        replay, watch, now = self.memory.world.replay, self.memory.watch, self.memory.world.engine.now
        call = watch.window if watch else None
        if replay is None or watch is None or call is None or not self._bios_tell:
            return page.index
        own, read = {page.index, *window}, self._read_in(watch.thread, call)
        if own & self.memory.gfn_to_vpn.keys() == read:
            return page.index
        others = replay.faults_beside(page.index, watch.thread, call.start_ns, call.end_ns)
        around = [other for other in others if other in self.memory.gfn_to_vpn]
        around.insert(0 if read <= own else len(around), page.index)  # most likely not its own, if it has read more
        why = f"around which page the window was chosen that was read for {page.index:#x}"
        chosen = around[replay.choices.ask(len(around), why, page.index)]
        if chosen != page.index:
            watch.held_until_ns = max(now, replay.first_read(watch.thread, now, call.end_ns))
        return chosen

    def taken(self, unit: str, number: int) -> bool:
        """Whether another thread read this page of the window while the running one was about to."""
        replay, watch = self.memory.world.replay, self.memory.watch
        window = watch.window if watch else None
        vpn = next(iter(self.memory.vpns(unit, (number,))), None)
        page = self.memory.pages.get(vpn) if vpn is not None else None
        if replay is None or watch is None or window is None or page is None:
            return False
        call = (page.index, watch.thread, window.start_ns, window.end_ns)
        if page.hole and added_with_others(replay.recorded, *call):
            key = (watch.thread, window.start_ns, page.index)
            if key not in self._filled:
                why = f"whether another thread filled {page.index:#x} first"
                self._filled[key] = replay.choices.maybe(why, page.index, likely=True)
            return self._filled[key]
        return replay.own_read(*call) < 0 and replay.others_read(*call)

    def told(self) -> bool:
        """Whether the VMM had sent the running vCPU thread a signal, which did not call handle_mm_fault once more."""
        replay, watch, now = self.memory.world.replay, self.memory.watch, self.memory.world.engine.now
        if replay is None or watch is None or watch.calls_again:
            return False
        if not replay.tells(self.memory.running, now, watch.left_ns):
            return False
        return replay.choices.ask(2, f"whether vCPU {self.memory.running} had not been told to stop") == 0

    def asks_late(self, page: HostPage) -> bool:
        """Whether another thread came for the page before the running one, which asks the file system whether it may
        be written, had its lock: ext4_page_mkwrite (fs/ext4/inode.c) updates the file's times before."""
        replay, watch, now = self.memory.world.replay, self.memory.watch, self.memory.world.engine.now
        window = watch.window if watch else None
        if replay is None or watch is None or window is None:
            return False
        calls = replay.calls_within(page.index, watch.thread, now, window.end_ns)
        moments = [-1, *(call.start_ns + 1 for call in calls)]
        if window.slept:  # most likely then
            moments.reverse()
        why = f"when the file system was asked about {page.index:#x}"
        self.resumes_ns = moments[replay.choices.ask(len(moments), why, page.index)]
        return self.resumes_ns >= 0

    def refused(self, page: HostPage) -> bool:
        """Whether the device ended the read that the running thread has just submitted without taking it."""
        replay, now = self.memory.world.replay, self.memory.world.engine.now
        end = replay.read_end(page.index, now) if replay is not None else -1
        if replay is None or (page.index, end) not in replay.recorded.refused:
            return False
        self.resumes_ns = end + 1
        return True

    def finished(self, page: HostPage) -> bool:
        """Whether the read that the running thread has just submitted ended before it tried the page's lock."""
        replay, watch, now = self.memory.world.replay, self.memory.watch, self.memory.world.engine.now
        if replay is None or watch is None:
            return self.memory.world.pace.reads_first(page.index)
        window, end = watch.window, replay.read_end(page.index, now)
        limit = window.end_ns if window else watch.end_ns
        why = f"whether the read of {page.index:#x} was faster"
        likely = window is not None and not (window.missed or window.slept)
        return 0 <= end <= limit and replay.choices.maybe(why, page.index, likely=likely)
