# SPDX-License-Identifier: GPL-2.0-or-later
"""When a read of the gated device may end: the plan's release rule, and what must have been seen for it.

Pure, and the one place that knows: the agent's server asks it with what it sees in the trace
(harness/agent/gate/keeper.py), the simulation with the events that it makes (harness/model/simulation/gated.py).
Pages are guest frame numbers; vCPUs are counted from 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.contract.plan import Swap
from harness.contract.words import ReadEnd, Release, SwapKind
from harness.errors import UsageError

HELD = (SwapKind.GATED, SwapKind.USERFAULT)
"""Sources whose pages come when the plan says so."""
COUNTED = (Release.NP, Release.REPEATED, Release.ASLEEP, Release.HALTED)


@dataclass(frozen=True, slots=True)
class Rule:
    """A release rule.  Once it was met, the plan goes on with the default rule, ``np``."""

    word: Release = Release.NP
    count: int = 1


def rule_of(swap: Swap) -> Rule | None:
    """The release rule of a gated source, None for others. :raise UsageError: see parse_rule."""
    return parse_rule(swap.release) if swap.kind in HELD else None


def parse_rule(text: str) -> Rule:
    """``np``, ``np:2``, ``repeated:3``, ``step``, ... :raise UsageError: it is none."""
    word, colon, number = text.partition(":")
    try:
        release = Release(word)
    except ValueError:
        raise UsageError(f"{text!r}: {word!r} is not one of {', '.join(Release)}") from None
    if not colon:
        return Rule(release)
    if release not in COUNTED or not number.isdecimal() or int(number) < 1:
        raise UsageError(f"{text!r}: a count goes with {', '.join(COUNTED)}, and is at least 1")
    return Rule(release, int(number))


@dataclass(slots=True)
class Seen:
    """What the rule looks at, told in the order in which it happened.

    ``workers_seen``: what workers do is told too; else a fault is settled when it was announced.
    """

    rule: Rule = field(default_factory=Rule)
    vcpus: int = 1
    workers_seen: bool = True
    met: bool = False
    repeats: int = 0
    outstanding: dict[tuple[int, int], None] = field(default_factory=dict)  # (vCPU, page) announced and not ready
    faulted: dict[tuple[int, int], None] = field(default_factory=dict)  # of them those whose page is faulted on again
    wanted: dict[int, int] = field(default_factory=dict)  # vCPU -> page of a fault that is not settled
    asleep: set[int] = field(default_factory=set)  # vCPUs whose thread is in TASK_UNINTERRUPTIBLE
    dozing: set[int] = field(default_factory=set)  # in TASK_INTERRUPTIBLE: in a halt, or in handle_userfault
    own: set[int] = field(default_factory=set)  # vCPUs for which KVM itself asks for the page of ``wanted``
    told: set[int] = field(default_factory=set)  # of them those that a signal has woken: they ask again and again
    worked_on: dict[int, int] = field(default_factory=dict)  # kworker -> page that its work asks for
    workers_asleep: set[int] = field(default_factory=set)
    through: Counter[int] = field(default_factory=Counter)  # page -> works that completed and are not ready
    inits: set[int] = field(default_factory=set)  # vCPUs with an INIT or a reset, and no EN since
    resets: set[int] = field(default_factory=set)  # of them those of a machine that was reset
    doubtful: set[tuple[int, int]] = field(default_factory=set)  # of ``outstanding``, those of before a write of CR0

    def let_go(self) -> None:
        """The host word "release"."""
        self.met = True

    def fault(self, vcpu: int, page: int) -> None:
        """kvm_page_fault.  What was announced for this page is found to be so by what follows
        (kvm_async_pf_repeated_fault), or was forgotten and is announced anew (the queue was cleared).  An artificial
        halt that does not last has its vCPU fault again and again (an unserved completion, kvm_arch_vcpu_runnable)."""
        self.faulted = {each: None for each in self.faulted if each[0] != vcpu or each == (vcpu, page)}
        if (vcpu, page) in self.outstanding:
            del self.outstanding[vcpu, page]
            self.faulted[vcpu, page] = None
        self._wants(vcpu, page)

    def asks(self, vcpu: int, page: int) -> None:
        """handle_mm_fault in the vCPU thread: for the fault, or for an access of KVM's own (the shared area), which no
        signal ends that is not fatal (arch/x86/mm/fault.c:do_user_addr_fault, fault_signal_pending)."""
        own = vcpu in self.own or self.wanted.get(vcpu) != page
        self._wants(vcpu, page)
        if own:
            self.own.add(vcpu)

    def _wants(self, vcpu: int, page: int) -> None:
        self.wanted[vcpu] = page
        self.own.discard(vcpu)
        self.told.discard(vcpu)

    def announced(self, vcpu: int, page: int) -> None:
        """kvm_async_pf_not_present."""
        if page not in self.announced_pages:
            del self.through[page]  # works that were cancelled, or cleared when they had completed
        self._is_out(vcpu, page)
        self.wanted.pop(vcpu, None)

    def repeated(self, vcpu: int) -> None:
        """kvm_async_pf_repeated_fault: the page of its last fault is still outstanding."""
        self.repeats += 1
        page = self.wanted.pop(vcpu, None)
        if page is not None:
            self._is_out(vcpu, page)

    def _is_out(self, vcpu: int, page: int) -> None:
        self.faulted.pop((vcpu, page), None)
        self.outstanding.setdefault((vcpu, page))
        self.doubtful.discard((vcpu, page))

    def cr0_written(self, vcpu: int) -> None:
        """CR0 was written by the guest: a change of PG empties the vCPU's queue in some kernels and not in others
        (arch/x86/kvm/x86.c:kvm_set_cr0 of 5.10, kvm_post_set_cr0), so that works that had not begun may never."""
        self.doubtful.update(each for each in self.outstanding if each[0] == vcpu)

    def disabled(self, vcpu: int) -> None:
        """EN was written so that async page faults are off: KVM has emptied the vCPU's queue, and works that had not
        begun never will (virt/kvm/async_pf.c:kvm_clear_async_pf_completion_queue)."""
        self.outstanding = {each: None for each in self.outstanding if each[0] != vcpu}
        self.faulted = {each: None for each in self.faulted if each[0] != vcpu}

    def given_init(self, vcpu: int) -> None:
        """Its LAPIC has accepted one.  It is over, with all that it drops, when the vCPU's new program writes EN."""
        self.inits.add(vcpu)

    def given_reset(self) -> None:
        """The machine is reset.  All vCPUs stand, and the VMM has each write EN = 0 (KVM_SET_MSRS, which nothing
        traces), one after another (cpus.c:cpu_synchronize_all_post_reset).  As all stand, none is in a fault: where its
        last one ended no event has told, and who sleeps waits for a worker."""
        self.wanted.clear()
        self.resets = set(range(self.vcpus))
        self.inits |= self.resets
        for vcpu in sorted(self.asleep):
            self._flushes(vcpu)

    def loaded(self) -> None:
        """A snapshot was loaded, behind a reset; EN is what it was, and no vCPU has run since."""
        for vcpu in range(self.vcpus):
            self.begins_anew(vcpu)

    def _flushes(self, vcpu: int) -> None:
        """In a reset, and asleep for no page of its own: it waits for a worker, and those before it have been reset."""
        if vcpu in self.resets and vcpu not in self.wanted:
            for before in self.resets & set(range(vcpu)):
                self.disabled(before)

    def enabled(self, vcpu: int) -> None:
        """EN was written so that async page faults are on: in a new life, or in the one of before."""
        if vcpu in self.inits:
            self.begins_anew(vcpu)

    def begins_anew(self, vcpu: int) -> None:
        """The vCPU has lost its state: nothing is outstanding for it, and it sleeps on nothing."""
        self.disabled(vcpu)
        self.wanted.pop(vcpu, None)
        self.wakes(vcpu)
        self.inits.discard(vcpu)
        self.resets.discard(vcpu)

    def ready(self, vcpu: int, page: int) -> None:
        """kvm_async_pf_ready."""
        self.outstanding.pop((vcpu, page), None)
        self.faulted.pop((vcpu, page), None)
        self.through[page] = max(0, self.through[page] - 1)

    def work(self, worker: int, page: int) -> None:
        """handle_mm_fault in a kworker: async_pf_execute asks for the page."""
        self.worked_on[worker] = page
        self.workers_asleep.discard(worker)

    def work_sleeps(self, worker: int) -> None:
        """The kworker left its CPU in TASK_UNINTERRUPTIBLE."""
        if worker in self.worked_on:
            self.workers_asleep.add(worker)

    def work_done(self, worker: int) -> None:
        """kvm_async_pf_completed."""
        page = self.worked_on.pop(worker, None)
        if page is not None:
            self.through[page] += 1
        self.workers_asleep.discard(worker)

    def sleeps(self, vcpu: int, *, interruptible: bool = False) -> None:
        """The vCPU thread left its CPU to sleep."""
        (self.dozing if interruptible else self.asleep).add(vcpu)
        if not interruptible:
            self._flushes(vcpu)

    def wakes(self, vcpu: int) -> None:
        """It runs again: its page has come, or a signal has."""
        if vcpu in self.dozing & self.own:
            self.told.add(vcpu)
        self.runs(vcpu)

    def runs(self, vcpu: int) -> None:
        """It does something, hence does not sleep.  Whoever has a signal pending is switched out as one that goes to
        sleep, and nobody wakes it (kernel/sched/core.c:__schedule)."""
        self.asleep.discard(vcpu)
        self.dozing.discard(vcpu)

    @property
    def announced_pages(self) -> frozenset[int]:
        """Pages of faults that were announced and are not ready."""
        return frozenset(page for _, page in self.outstanding)

    @property
    def awaited(self) -> frozenset[int]:
        """Pages that somebody waits for."""
        waiting = self.asleep | self.dozing | self.told
        return self.announced_pages | {self.wanted[v] for v in waiting if v in self.wanted}

    @property
    def settled(self) -> bool:
        """The worker of each fault that was announced and is not ready sleeps on its page, or is through with it (an
        INIT may have cleared what it completed: nothing is ever ready then), as far as workers are seen."""
        if not self.workers_seen:
            return True
        waited_for, announced = self._waited_for, Counter(page for _, page in self.outstanding.keys() - self._cancelled)
        return all(page in waited_for or self.through[page] >= n for page, n in announced.items())

    @property
    def passes(self) -> bool:
        """Whether a read that no fault of the guest waits for may end; only a release holds it."""
        return self.met or self.rule.word is not Release.STEP

    @property
    def halted(self) -> int:
        """How many vCPU threads sleep in a halt with a page outstanding."""
        return len(self._halted)

    @property
    def _halted(self) -> set[int]:
        return self.dozing & {v for v, _ in self.outstanding}

    def _settled_count(self) -> int:
        """Faults that were announced, are not ready, and whose worker sleeps."""
        if not self.workers_seen:
            return len(self.outstanding)
        waited_for = self._waited_for
        return sum(1 for _, page in self.outstanding if page in waited_for) + len(self._asked_again)

    @property
    def _asked_again(self) -> frozenset[tuple[int, int]]:
        """Faults of ``faulted`` that are outstanding whatever their vCPU has found by now: a work of its own, which
        sleeps, belongs to each."""
        if not self.faulted or not self.workers_seen:
            return frozenset()
        asleep = Counter(self.worked_on[w] for w in self.workers_asleep)
        others = Counter(page for _, page in self.outstanding)
        pages = Counter(page for _, page in self.faulted)
        return frozenset(each for each in self.faulted if asleep[each[1]] >= others[each[1]] + pages[each[1]])

    def due(self, held: Sequence[frozenset[int]]) -> list[tuple[int, ReadEnd]]:
        """Which of the reads that are held, each with the pages that it brings, may end now, and why."""
        found = []
        there = frozenset[int]().union(*held)
        slept_on = {self.wanted[v] for v in self._on_reads(there)}
        waited_for, announced = self._waited_for, self._to_settle
        self.met = self.met or self._is_met(there)
        if not self.met and not self._stuck(there):
            return []
        for position, pages in enumerate(held):
            outstanding = pages & announced
            if outstanding and (not self.workers_seen or outstanding <= waited_for):
                found.append((position, ReadEnd.ANNOUNCED))
            elif pages & slept_on:
                found.append((position, ReadEnd.ASLEEP))
        return found

    def _stuck(self, there: frozenset[int]) -> bool:
        """No vCPU can go on before a read ends, or too few can to halt as the rule has it; and each worker whose read
        is held sleeps on it, so nothing that the rule waits for can come."""
        asleep = len(self._sleepers(there)) == self.vcpus
        if self.rule.word is Release.AFTER or not (asleep or self._too_few_to_halt(there)):
            return False
        return not self.workers_seen or not (self._to_settle & there) - self._waited_for

    def _too_few_to_halt(self, there: frozenset[int]) -> bool:
        """Whoever sleeps in a fault on a page that is held does not halt before the read ends."""
        may = self.vcpus - len(self._on_reads(there) - self._halted)
        return self.rule.word is Release.HALTED and may < self.rule.count

    @property
    def _to_settle(self) -> frozenset[int]:
        """Pages of faults that were announced, whose worker is still to sleep on them or does."""
        return frozenset(page for _, page in (self.outstanding.keys() - self._cancelled) | self._asked_again)

    @property
    def _cancelled(self) -> set[tuple[int, int]]:
        """A vCPU thread that sleeps, and for no page of its own, waits for a worker (cancel_work_sync); what stands in
        its queue before the first work that was begun has been cancelled, as the queue is emptied from its head.  So
        may have been what stood in it when CR0 was written: it counts again once its work begins."""
        begun = set(self.worked_on.values())
        found = {each for each in self.doubtful & self.outstanding.keys() if each[1] not in begun}
        for vcpu in self.asleep - self.wanted.keys():
            own = [each for each in self.outstanding if each[0] == vcpu]
            first = next((n for n, (_, page) in enumerate(own) if page in begun), 0)
            found.update(own[:first])
        return found

    @property
    def _waited_for(self) -> frozenset[int]:
        """Pages that a worker sleeps on."""
        return frozenset(self.worked_on[w] for w in self.workers_asleep)

    def _sleepers(self, there: frozenset[int]) -> set[int]:
        """vCPUs whose thread sleeps on a read that is held, or (flush_work) on a worker that does."""
        waiting = {v for v, page in self.outstanding if page in there}
        return self._on_reads(there) | (self.asleep & waiting)

    def _on_reads(self, there: frozenset[int]) -> set[int]:
        """vCPUs whose thread sleeps in a fault on a page that is held."""
        return {v for v in self.asleep | self.dozing | self.told if self.wanted.get(v) in there}

    def _is_met(self, there: frozenset[int]) -> bool:
        match self.rule.word:
            case Release.NP:
                return self._settled_count() + len(self._on_reads(there)) >= self.rule.count
            case Release.REPEATED:
                return self.repeats >= self.rule.count
            case Release.ASLEEP:
                return len(self._sleepers(there)) >= self.rule.count
            case Release.HALTED:
                return self.halted >= self.rule.count
            case Release.STEP | Release.AFTER | Release.OPEN:
                return False
