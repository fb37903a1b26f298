# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording that drives one run of the simulation: where each vCPU thread has got to in it.

The simulation says what a vCPU does next, the recording says when it did it, and which of several possible things it
did first.  Where the recording has what the simulation cannot do, the two have parted: Diverged.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import NoReturn

from harness.contract.words import HostWord
from harness.model.events import MSR_ASYNC_PF_ACK, Kind
from harness.model.simulation.choices import Choices
from harness.model.simulation.recorded import FaultCall, PageChange, Recorded, RecordedAction, RecordedEvent, WorkRun
from harness.model.simulation.thread_calls import ThreadCalls

INTERRUPTS = ("ready", "irq")
"""Words of the guest's log that say: here an interrupt was taken."""
BOOT = "boot"
"""The word that says: here the vCPU's next life begins."""

_UNKNOWN_TO_QEMU = frozenset({
    HostWord.FREEZE, HostWord.THAW, HostWord.RELEASE, HostWord.DELAY, HostWord.SLEEP, HostWord.WAIT_NP,
    HostWord.WAIT_DONE, HostWord.WAIT_SETTLED, HostWord.WAIT_HALTED, HostWord.LOCK_READ, HostWord.RECLAIM,
    HostWord.CHANGE_MM,
})  # fmt: skip
"""Host words that get no vCPU thread out of KVM_RUN."""

_STOPS_ALL = frozenset({HostWord.STOP, HostWord.SAVEVM, HostWord.LOADVM})
"""Host words by which QEMU stops all vCPUs (migration/savevm.c: vm_stop)."""


class Diverged(Exception):
    """The recording has something that the model's vCPU cannot do there.  ``pages``: numbers of the guest pages that
    the two are about; ``misread``: when before that a call of handle_mm_fault first read other pages than the recorded,
    the page that it was for, and how many questions had been asked by then."""

    misread: tuple[int, int, int] | None = None

    def __init__(self, t_ns: int, line: int, text: str, pages: frozenset[int] = frozenset()) -> None:
        super().__init__(text)
        self.t_ns, self.line, self.text, self.pages = t_ns, line, text, pages


_time_of = attrgetter("t_ns")
_end_of = attrgetter("end_ns")
_time_of_bio = itemgetter(0)


@dataclass(slots=True)
class Replay:
    """One run."""

    recorded: Recorded
    choices: Choices = field(default_factory=Choices)
    strays: list[int] = field(default_factory=list)  # pages of calls that one lacks, or returned otherwise
    # Calls that read other pages than the recorded: when, for which page, and how many questions were asked before.
    misread: list[tuple[int, int, int]] = field(default_factory=list)
    _at: list[int] = field(init=False)
    _log_at: list[int] = field(init=False)
    _asked: list[set[int]] = field(init=False)  # resets, by their place among the marks
    _kvm_threads: frozenset[int] = field(init=False)  # those of vCPUs and of works
    _host_used: set[int] = field(default_factory=set)
    _changes: dict[int, list[PageChange]] = field(default_factory=dict)  # by gfn, in order of time
    _bios: dict[int, list[tuple[int, Set[int]]]] = field(default_factory=dict)  # by thread, in order of time
    _calls: dict[int, tuple[list[FaultCall], int]] = field(default_factory=dict)  # in order of end; the longest
    _by_thread: ThreadCalls | None = None
    _looks: dict[int, list[RecordedEvent]] | None = None
    _unlocked: dict[tuple[int, int], int] = field(default_factory=dict)  # by (gfn, end of a read)

    def __post_init__(self) -> None:
        self._at = [0] * len(self.recorded.marks)
        self._log_at = [0] * len(self.recorded.marks)
        self._asked = [set() for _ in self.recorded.marks]
        works = self.recorded.works.values()
        self._kvm_threads = frozenset((*self.recorded.threads, *(run.thread for run in works)))

    # --- the trace of a vCPU
    def peek(self, vcpu: int, kind: Kind | None = None, key: int = -1) -> RecordedEvent | None:
        """What this vCPU does next, optional marks only if they are asked for; None: nothing more was recorded."""
        marks = self.recorded.marks[vcpu]
        for at in range(self._at[vcpu], len(marks)):
            mark = marks[at]
            if not mark.optional or (kind is not None and mark.fits(kind, key)):
                return mark
        return None

    def next_of_guest(self, vcpu: int) -> RecordedEvent | None:
        """What this vCPU's guest does next of its own, whatever is told to it before; None: nothing, or it is reset."""
        for mark in self.recorded.marks[vcpu][self._at[vcpu] :]:
            told = mark.kind in (Kind.RDY, Kind.VIRQ) or mark.fits(Kind.WRMSR, MSR_ASYNC_PF_ACK)
            if not (told or mark.optional):
                return None if mark.kind is Kind.CLEAR else mark
        return None

    def take(self, vcpu: int, mark: RecordedEvent) -> None:
        """It has done it."""
        self._at[vcpu] = self.recorded.marks[vcpu].index(mark, self._at[vcpu]) + 1

    def part(self, vcpu: int, now_ns: int, found: RecordedEvent, wanted: str, page: int = -1) -> NoReturn:
        """The recording has ``found`` where the model would do ``wanted``, which is about ``page``.

        :raise Diverged: always.
        """
        text = f"vCPU {vcpu}: {found.kind.name} {found.key:#x} is recorded, where the model has {wanted}"
        raise Diverged(
            max(now_ns, found.start_ns), found.line, text, frozenset({page, self.page_of(vcpu, found)} - {-1})
        )

    def page_of(self, vcpu: int, found: RecordedEvent) -> int:
        """The page that it is about; -1: none."""
        work = self.work(vcpu, found.key) if found.kind in (Kind.NP, Kind.RDY) else None
        return work.gfn if work else found.key if found.kind in (Kind.PF, Kind.REP) else -1

    def only_interrupts(self, vcpu: int, now_ns: int) -> None:
        """An idle guest does nothing of its own.

        :raise Diverged: the recorded one did.
        """
        mark = self.peek(vcpu)
        if mark is not None and mark.kind not in (Kind.RDY, Kind.VIRQ, Kind.CLEAR):
            self.part(vcpu, now_ns, mark, "an idle guest that waits for an interrupt")

    # --- the guest's own log
    def logged(self, vcpu: int) -> str:
        """The word of the guest's next record on this vCPU, "" if there is none."""
        log = self.recorded.log[vcpu]
        return log[self._log_at[vcpu]][0] if self._log_at[vcpu] < len(log) else ""

    def log(self, vcpu: int, word: str, number: int = -1) -> bool:
        """The guest has come to this record (number -1: to the next of this word); False: it was reset before."""
        log = self.recorded.log[vcpu]
        for at in range(self._log_at[vcpu], len(log)):
            if log[at][0] == word and number in (-1, log[at][1]):
                self._log_at[vcpu] = at + 1
                return True
            if log[at][0] == BOOT:
                return False
        return self.end_of_life(vcpu) is None and vcpu not in self.recorded.unstarted

    # --- lives
    def end_of_life(self, vcpu: int) -> RecordedEvent | None:
        """The next reset of the vCPU; None: none was recorded."""
        marks = self.recorded.marks[vcpu]
        return next((m for m in marks[self._at[vcpu] :] if m.kind is Kind.CLEAR), None)

    def ask_for_reset(self, vcpu: int) -> RecordedEvent | None:
        """The next reset of the vCPU that nobody has asked for; None: none was recorded.  One that sleeps in the reset
        of an INIT may be due for the machine's next."""
        marks, asked = self.recorded.marks[vcpu], self._asked[vcpu]
        later = range(self._at[vcpu], len(marks))
        at = next((at for at in later if marks[at].kind is Kind.CLEAR and at not in asked), None)
        if at is None:
            return None
        asked.add(at)
        return marks[at]

    def paused_ns(self, vcpu: int, now_ns: int, mark: RecordedEvent) -> int:
        """From when on the vCPU can do nothing more, once it is asked for the reset ``mark``: the VMM pauses all before
        it resets one (QEMU 7.2, softmmu/runstate.c:main_loop_should_exit)."""
        marks = self.recorded.marks[vcpu]
        before = marks[: marks.index(mark, self._at[vcpu])]
        last_ns = max((max(m.end_ns, m.until_ns) for m in before[-1:]), default=0)
        exits = (t for t in self.recorded.exits[vcpu] if max(now_ns, last_ns) <= t < mark.end_ns)
        return next(exits, mark.end_ns - 1)

    def shutdown_ns(self, vcpu: int, now_ns: int) -> int:
        """When its triple fault ended KVM_RUN (KVM_EXIT_SHUTDOWN): a pause before it has no length in a recording, and
        SVM's shutdown_interception gives the vCPU an INIT first, which may sleep."""
        mark = self.end_of_life(vcpu)
        return now_ns if mark is None else self.paused_ns(vcpu, now_ns, mark)

    def next_life(self, vcpu: int, mark: RecordedEvent) -> None:
        """The vCPU is reset.

        :raise Diverged: it had done something before that the model has not.
        """
        found = self.peek(vcpu)
        if found is not None and found is not mark:
            self.part(vcpu, mark.start_ns, found, "a reset of the vCPU")
        self.take(vcpu, mark)
        log = self.recorded.log[vcpu]
        boots = [at for at in range(self._log_at[vcpu], len(log)) if log[at][0] == BOOT]
        later = self.recorded.marks[vcpu][self._at[vcpu] :]
        lives = [each for each in later if each.kind is Kind.CLEAR]
        programs = sum(each.entered for each in lives)
        # A reset of the machine ended those that an INIT had begun: they had logged their begin, and nothing more.
        ended = len(boots) - 1 - len(lives)
        while ended > 0 and log[boots[0] + 1][0] == BOOT:
            boots.pop(0)
            ended -= 1
        unlogged = not mark.entered and len(boots) <= programs  # an INIT ended it before it had logged its begin
        self._log_at[vcpu] = len(log) if not boots else boots[0] + (not unlogged)

    # --- others
    def work(self, vcpu: int, token: int) -> WorkRun | None:
        """The worker's run of this work; None: there was none."""
        return self.recorded.works.get((vcpu, token))

    def read_end(self, gfn: int, since_ns: int) -> int:
        """When the read of this page that is in flight at ``since_ns`` ended; -1: not while it was recorded."""
        since_ns += (gfn, since_ns) in self.recorded.refused  # that one is over, and what it was refused is read again
        for end_ns in self.recorded.read_ends.get(gfn, ()):
            if end_ns >= since_ns:
                return end_ns
        return -1

    def unlocks(self, gfn: int, end_ns: int) -> list[int]:
        """Moments after the traced end of a read at which its page may have been unlocked.

        block_rq_complete comes before bio_endio (block/blk-mq.c:blk_update_request); whoever calls handle_mm_fault for
        the page between that and the next that this CPU is seen to do may find it locked.  Empty: nobody did.
        """
        over = self.recorded.over.get((gfn, end_ns), self.recorded.end_ns)
        calls = self.recorded.calls.get(gfn, ())
        if not any(end_ns < c.start_ns < over for c in calls):
            return []
        return sorted({over, *(c.end_ns - 1 for c in calls if end_ns < c.end_ns <= over)})

    def unlocked(self, gfn: int, end_ns: int) -> int:
        """When the page was unlocked whose read ended then: not before the page before it in the same bio or request,
        as its pages are told of the end one by one (block/blk-mq.c:blk_update_request, fs/mpage.c:mpage_end_io,
        fs/ext4/readpage.c:mpage_end_io)."""
        before = self.recorded.before.get((gfn, end_ns), -1)
        earliest = self._unlocked.get((before, end_ns), end_ns)
        found = self._found(gfn, end_ns)
        later = [moment for moment in self.unlocks(gfn, end_ns) if moment <= found]
        likely = max(earliest, self._missed(gfn, end_ns, later[-1])) if later else earliest
        moments = sorted({earliest, likely, *(moment for moment in later if moment > earliest)})
        moments.sort(key=lambda moment: moment < likely)
        chosen = self.choices.moment(moments, f"when the page {gfn:#x} was unlocked", gfn)
        self._unlocked[gfn, end_ns] = chosen
        return chosen

    def _found(self, gfn: int, end_ns: int) -> int:
        """When it was unlocked, at the latest: who called handle_mm_fault behind the end of its read, and was not told
        to retry, has found it so, and so has a worker that slept for it."""
        calls, vcpus = self.recorded.calls.get(gfn, ()), set(self.recorded.threads)
        found = [c.end_ns - 1 for c in calls if not c.missed and c.start_ns > end_ns]
        found += [c.end_ns - 1 for c in calls if c.slept and c.thread not in vcpus and c.end_ns > end_ns]
        return min(found, default=self.recorded.end_ns)

    def _missed(self, gfn: int, since_ns: int, until_ns: int) -> int:
        """When handle_mm_fault last found the page not ready between the two; ``since_ns`` if it never did."""
        return self.last_missed([c for c in self.recorded.calls.get(gfn, ()) if c.missed], since_ns, until_ns)

    def last_missed(self, calls: Sequence[FaultCall], since_ns: int, until_ns: int) -> int:
        vcpus = set(self.recorded.threads)  # a worker always waits
        missed = [c.end_ns if c.thread in vcpus and not c.slept else c.start_ns + 1 for c in calls]
        return max((t for t in missed if since_ns < t < until_ns), default=since_ns)

    def looks(self, gfn: int) -> Sequence[RecordedEvent]:
        """Page faults for the page, and looks at it before a ready event."""
        if self._looks is None:
            self._looks = defaultdict(list)
            for vcpu, marks in enumerate(self.recorded.marks):
                for mark in marks:
                    if mark.kind in (Kind.PF, Kind.RDY):
                        self._looks[self.page_of(vcpu, mark)].append(mark)
        return self._looks.get(gfn, ())

    def own_read(self, gfn: int, thread: int, start_ns: int, end_ns: int) -> int:
        """When the thread submitted the page to be read between the two; -1: it did not."""
        for read in self.recorded.reads.get(gfn, ()):
            if read.thread == thread and start_ns <= read.end_ns <= end_ns:
                return read.end_ns
        return -1

    def brought_with(self, thread: int, at_ns: int) -> Set[int]:
        """Pages that the thread submitted to be read in one go."""
        return self.recorded.brought.get((thread, at_ns), frozenset())

    def others_read(self, gfn: int, thread: int, start_ns: int, end_ns: int) -> bool:
        """Whether another thread was about to read the page between the two: it puts it into the cache before."""
        reads = self.recorded.reads.get(gfn, ())
        return any(r.thread != thread and r.start_ns <= end_ns and start_ns <= r.end_ns for r in reads)

    def last_read(self, gfn: int, now_ns: int) -> FaultCall | None:
        """The last submission of the page to be read by now; None: there was none."""
        reads = [read for read in self.recorded.reads.get(gfn, ()) if read.end_ns <= now_ns]
        return max(reads, key=_end_of, default=None)

    def next_of_reader(self, read: FaultCall) -> int:
        """When the thread that submitted this read is seen to do something else in its call, or to come back from it:
        it has gone on by then."""
        calls = (c for calls in self.recorded.calls.values() for c in calls if c.thread == read.thread)
        back = min((c.end_ns for c in calls if c.start_ns <= read.end_ns < c.end_ns), default=read.end_ns)
        more = self._bios_within(read.thread, read.end_ns, back)
        return min((at for at, _ in more if at > read.end_ns), default=back)

    def read_at(self, gfn: int, at_ns: int) -> bool:
        """Whether the page was submitted to be read at this time."""
        return any(read.end_ns == at_ns for read in self.recorded.reads.get(gfn, ()))

    def reads_beside(self, thread: int, start_ns: int, end_ns: int) -> bool:
        """Whether another thread was about to read any page between the two, or submitted it."""
        reads = (read for found in self.recorded.reads.values() for read in found)
        return any(r.thread != thread and r.start_ns < end_ns and start_ns < r.end_ns for r in reads)

    def windows_before_own(self, thread: int, start_ns: int, end_ns: int) -> list[int]:
        """When other threads first submitted a read of a call between the two, and before this one did: a window is
        chosen before the first of its reads.  Or when they came back from one that read nothing: it may have found its
        page in the swap cache, which read-ahead remembers as well (mm/swap_state.c:swap_cache_get_folio).  Or when they
        began a major one that read nothing: a page of zeroes has a window (mm/page_io.c:swap_read_folio_zeromap)."""
        own = self.first_read(thread, start_ns, end_ns)
        until = end_ns if own < 0 else own
        if self._by_thread is None:
            self._by_thread = ThreadCalls.of(c for calls in self.recorded.calls.values() for c in calls)
        calls = self._by_thread.beside(thread, start_ns, until)
        reads = [self.first_read(c.thread, c.start_ns, c.end_ns) for c in calls]
        silent = (c.start_ns if c.major else c.end_ns for c, at in zip(calls, reads, strict=True) if at < 0)
        found = {*reads, *silent}
        return sorted(at for at in found if start_ns < at < until)

    def read_over(self, gfn: int, thread: int, start_ns: int, end_ns: int) -> list[int]:
        """When other threads submitted a bio that goes over this page, which has no blocks: they have added it."""
        bios = ((at, gfns) for (reader, at), gfns in self.recorded.brought.items() if reader != thread)
        return sorted(at for at, gfns in bios if start_ns < at < end_ns and min(gfns) < gfn < max(gfns))

    def first_read(self, thread: int, start_ns: int, end_ns: int) -> int:
        """When the thread first submitted anything to be read between the two; -1: it did not."""
        return min((at for at, _ in self._bios_within(thread, start_ns, end_ns)), default=-1)

    def read_within(self, thread: int, start_ns: int, end_ns: int) -> Set[int]:
        """The pages that the thread submitted to be read between the two."""
        return set().union(*(gfns for _, gfns in self._bios_within(thread, start_ns, end_ns)))

    def _bios_within(self, thread: int, start_ns: int, end_ns: int) -> list[tuple[int, Set[int]]]:
        if not self._bios:
            for (reader, at), gfns in sorted(self.recorded.brought.items(), key=lambda bio: bio[0][1]):
                self._bios.setdefault(reader, []).append((at, gfns))
        bios = self._bios.get(thread, [])
        first, behind = (bisect_right(bios, t, key=_time_of_bio) for t in (start_ns, end_ns))
        return bios[first:behind]

    def other_call_ends(self, gfn: int, thread: int, now_ns: int) -> int:
        """When the call of handle_mm_fault for the page ends that another thread is in; -1: none is in one."""
        if gfn not in self._calls:
            calls = sorted(self.recorded.calls.get(gfn, ()), key=_end_of)
            self._calls[gfn] = calls, max((c.end_ns - c.start_ns for c in calls), default=0)
        calls, longest = self._calls[gfn]
        first, behind = (bisect_right(calls, t, key=_end_of) for t in (now_ns, now_ns + longest))
        return min((c.end_ns for c in calls[first:behind] if c.thread != thread and c.start_ns < now_ns), default=-1)

    def maps_around_until(self, gfns: Iterable[int], thread: int, now_ns: int) -> int:
        """When the last call of handle_mm_fault ends in which another thread is to read one of the pages; -1: none."""
        calls = (c for gfn in gfns for c in self.recorded.calls.get(gfn, ()) if c.thread != thread and not c.writes)
        return max((c.end_ns for c in calls if c.start_ns < now_ns < c.end_ns), default=-1)

    def calls_beside(self, gfns: Iterable[int], thread: int, start_ns: int, end_ns: int) -> bool:
        """Whether another thread was in handle_mm_fault for one of the pages between the two."""
        calls = (call for gfn in gfns for call in self.recorded.calls.get(gfn, ()))
        return any(c.thread != thread and c.start_ns <= end_ns and start_ns <= c.end_ns for c in calls)

    def finds_it(self, gfn: int, thread: int, start_ns: int, end_ns: int) -> list[int]:
        """When other threads, between the two, began what found the page mapped or its lock free: calls of
        handle_mm_fault that were not told to retry, and works that called nobody."""
        calls = self.recorded.calls.get(gfn, ())
        found = {c.start_ns for c in calls if c.thread != thread and not c.missed}
        found |= {run.start_ns for run in self.recorded.works.values() if run.gfn == gfn and not run.windows}
        return sorted(t for t in found if start_ns < t < end_ns)

    def calls_within(self, gfn: int, thread: int, start_ns: int, end_ns: int) -> list[FaultCall]:
        """The calls of handle_mm_fault for the page that other threads began between the two, in order."""
        calls = (c for c in self.recorded.calls.get(gfn, ()) if c.thread != thread and start_ns < c.start_ns < end_ns)
        return sorted(calls, key=attrgetter("start_ns"))

    def faults_beside(self, gfn: int, thread: int, start_ns: int, end_ns: int) -> list[int]:
        """The other pages for which other threads were in handle_mm_fault between the two; major ones come first."""
        found = {
            (not c.major, other)
            for other, calls in self.recorded.calls.items()
            for c in calls
            if other != gfn and c.thread != thread and c.start_ns < end_ns and start_ns < c.end_ns
        }
        return list(dict.fromkeys(other for _, other in sorted(found)))

    def called_beside(self, thread: int, start_ns: int, end_ns: int) -> bool:
        """Whether another thread was in handle_mm_fault, for whatever page, between the two."""
        return self.recorded.in_fault.beside(thread, start_ns, end_ns)

    def others_at(self, gfn: int, thread: int, start_ns: int, end_ns: int) -> bool:
        """Whether another thread was in handle_mm_fault for the page, or about to read it, between the two."""
        calls = self.recorded.calls.get(gfn, ())
        inside = any(c.thread != thread and c.start_ns <= end_ns and start_ns <= c.end_ns for c in calls)
        return inside or self.others_read(gfn, thread, start_ns, end_ns)

    def cuts(self, gfn: int, thread: int, start_ns: int, end_ns: int, around: Iterable[int] = ()) -> list[int]:
        """Moments between the two at which another thread or the device may have changed the page.

        Behind the thread's own read of it there is nothing open: it has looked before it read.

        :param around: pages whose faults map this one, too.
        """
        changes = self._changes.get(gfn)
        if changes is None:
            changes = self._changes[gfn] = sorted(self.recorded.changes.get(gfn, ()), key=_time_of)
        first, behind = (bisect_right(changes, t, key=_time_of) for t in (start_ns, end_ns))
        found = changes[first:behind]
        own = min((c.t_ns for c in found if c.thread == thread), default=end_ns + 1)
        neighbours = (call for other in around if other != gfn for call in self.recorded.calls.get(other, ()))
        mapped = {c.end_ns for c in neighbours if c.thread != thread and start_ns < c.end_ns < min(own, end_ns + 1)}
        return sorted(mapped | {c.t_ns for c in found if c.thread != thread and c.t_ns < own})

    def others_run(self, vcpu: int, start_ns: int, end_ns: int) -> bool:
        """Whether another vCPU's thread did anything between the two."""
        others = (marks for other, marks in enumerate(self.recorded.marks) if other != vcpu)
        return any(start_ns <= mark.end_ns and mark.start_ns <= end_ns for marks in others for mark in marks)

    def invalidated(self, vcpu: int, start_ns: int, end_ns: int) -> bool:
        """A notifier ran between the two: a mapping that was made then may have been refused, whatever its page
        (arch/x86/kvm/mmu/mmu.c:is_page_fault_stale; 5.10: mmu_notifier_retry).

        Where no event tells of notifiers, any thread that copies a page runs one (mm/memory.c:wp_page_copy).
        """
        if any(start_ns <= u.end_ns and u.start_ns <= end_ns for u in self.recorded.unmaps):
            return True
        return not self.recorded.unmaps_known and self.called_beside(self.recorded.threads[vcpu], start_ns, end_ns)

    def mapped_beside(self, vcpu: int, start_ns: int, end_ns: int) -> set[int]:
        """The pages that other vCPUs' threads were to map between the two."""
        return {
            stay.gfn
            for other, stays in enumerate(self.recorded.busy)
            if other != vcpu
            for stay in stays
            if stay.start_ns <= end_ns and start_ns <= stay.end_ns
        }

    def tells(self, vcpu: int, now_ns: int, until_ns: int) -> bool:
        """Whether the VMM had sent the vCPU's thread a signal just then (QEMU 7.2, system/cpus.c:pause_all_vcpus,
        qemu_cpu_kick): the agent wanted something of it that takes one, or the thread left KVM_RUN before ``until_ns``,
        as for a reset by the guest, or an eject."""
        wanted = any(a.do not in _UNKNOWN_TO_QEMU and a.start_ns <= now_ns <= a.end_ns for a in self.recorded.host)
        return wanted or any(now_ns <= t <= until_ns for t in self.recorded.exits[vcpu])

    def left_for_good_ns(self, vcpu: int) -> int:
        """When its thread left KVM_RUN, if that was when the KVM_RUN of one had failed; -1: it did not."""
        exits = self.recorded.exits[vcpu]
        return exits[-1] if exits and 0 <= self.recorded.failed_ns <= exits[-1] else -1

    def stopped_ns(self, vcpu: int, now_ns: int) -> int:
        """When the VMM had stopped all vCPUs, if this one's thread leaves KVM_RUN for that before it enters the guest
        (arch/x86/kvm/x86.c:vcpu_run: a signal ends it), or has left and not entered since, and does nothing more until
        then; -1: it does not.  While the stop waits for other threads, works end.  Where KVM_RUN of a vCPU has failed,
        the recording's end: nobody lets them go on."""
        mark, end_ns = self.peek(vcpu), self.recorded.end_ns
        next_ns = mark.start_ns if mark is not None else end_ns
        left = tuple(zip(self.recorded.exits[vcpu], self.recorded.entered[vcpu], strict=True))
        in_guest_ns = max((entered_ns for _, entered_ns in left if entered_ns <= now_ns), default=-1)
        exits = [t for t, entered_ns in left if entered_ns < now_ns and in_guest_ns < t]
        if mark is None and exits and exits[-1] == self.left_for_good_ns(vcpu) and now_ns <= end_ns:
            return end_ns
        for action in self.recorded.host if exits else ():
            through = action.do in _STOPS_ALL and now_ns <= action.end_ns <= next_ns
            if through and any(action.start_ns <= t <= action.end_ns for t in exits):
                return action.end_ns
        return -1

    def read_by_agent(self, gfn: int, action: RecordedAction) -> int:
        """When the process of lock-read submitted the page to be read, which it has locked then; the action's begin if
        that was not recorded.  -1: a thread of KVM's was faster, and the process only waits for the page's lock
        (mm/filemap.c:filemap_update_page)."""
        kvm = self._kvm_threads
        reads = [r for r in self.recorded.reads.get(gfn, ()) if r.end_ns <= action.end_ns]
        found = (r.end_ns for r in reads if r.thread not in kvm and action.start_ns <= r.end_ns)
        return min(found, default=-1 if any(r.thread in kvm for r in reads) else action.start_ns)

    def timed(self, actions: Sequence[tuple[str, int]], at_ns: int, number: int = -1) -> list[RecordedAction | None]:
        """The agent's records of one timed entry, which performs its actions one after the other beside others: the
        first is the nearest to its time, each later one the next behind."""
        found, since_ns = list[RecordedAction | None](), -1
        for do, arg in actions:
            like = [n for n in self._unused(do, arg, (-1, number)) if self.recorded.host[n].start_ns >= since_ns]
            if not like or None in found:
                found.append(None)
                continue
            at = like[0] if found else min(like, key=lambda n: abs(self.recorded.host[n].start_ns - at_ns))
            self._host_used.add(at)
            found.append(self.recorded.host[at])
            since_ns = self.recorded.host[at].end_ns
        return found

    def host(self, do: str, arg: int, number: int = -1) -> RecordedAction | None:
        """The agent's record of the next such action of a host step."""
        at = next(self._unused(do, arg, (number, -1)), -1)
        self._host_used.add(at)
        return self.recorded.host[at] if at >= 0 else None

    def _unused(self, do: str, arg: int, place: tuple[int, int]) -> Iterator[int]:
        """Records of such an action that nobody has had; of this place in the plan where the capture says which."""
        for at, a in enumerate(self.recorded.host):
            if at not in self._host_used and (a.do, a.arg) == (do, arg) and (a.host, a.timed) in ((-1, -1), place):
                yield at
