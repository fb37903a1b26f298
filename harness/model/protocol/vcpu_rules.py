# SPDX-License-Identifier: GPL-2.0-or-later
"""The automaton of one vCPU.  Events between two ENTRIES are gathered, the ENTRY decides what they were.

One KVM_RUN thread emits all events of a vCPU, so their order is the kernel's own:
EXIT, PF, TRY, NP or REP | (blocked) | RDY and ACC while done works can be dequeued | INJ | ENTRY.
An ACK write consumes done works before it is traced itself (arch/x86/kvm/x86.c:kvm_set_msr_common), so there RDY and
ACC precede the WRMSR.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from harness.model.delivery import (
    ASYNC_PF_PER_VCPU,
    EN_DELIVERY_AS_PF_VMEXIT,
    EN_SEND_ALWAYS,
    kvm_pv_async_pf_enabled,
)
from harness.model.events import INIT, LOADED, LOWEST_VECTOR, WAKE_ALL_TOKEN, Event, Kind
from harness.model.kernels import KernelModel
from harness.model.protocol.checker_types import Counts, Violation
from harness.model.protocol.doubts import Doubts
from harness.model.protocol.kick_rules import Kicked
from harness.model.protocol.l2_rules import area_zeroed, judge_injection
from harness.model.protocol.page_rules import Pages
from harness.model.protocol.prompt_rules import Prompt
from harness.model.protocol.ready_rules import Announced, take_away
from harness.model.protocol.rules import FaultState, InitialVcpu, Interval, RuleContext
from harness.model.protocol.saved_tokens import SavedToken, injected_again, keep
from harness.model.protocol.sleep_rules import Sleep
from harness.model.protocol.token_rules import Unlogged
from harness.model.protocol.wake_all import Unended, WakeAll
from harness.model.protocol.work_rules import Ledger, SeenWork

LAST_ID = 0xFFFFF


@dataclass(slots=True)
class Shared:
    """What the vCPUs of a VM have in common."""

    kernel: KernelModel
    context: RuleContext
    recorded: frozenset[Kind]
    ledger: Ledger
    found: list[Violation]
    pages: Pages
    vcpus: Sequence[SeenVcpu]
    seq: int = 0  # counts RDY, DONE and NP


@dataclass(slots=True)
class SeenReady:
    event: Event
    work: SeenWork | None  # None: wake-all, or a RDY that broke a rule
    enabled: bool | None
    seq: int
    irq: Event | None = None
    maybe: Event | None = None  # accepted behind it, while neither the vector is known nor whether its NP was a token
    injected: bool = False
    lost: bool = False  # a reset took the interrupt from the LAPIC


class SeenVcpu:
    """State and checks of one vCPU.  ``busy``: something since the last ENTRY has to be judged at the next."""

    __slots__ = (
        "acked", "apic_hw", "apic_sw", "areas", "batch", "batch_irq", "bio", "boots", "busy", "cleared", "context",
        "counts", "delivering", "doubts", "en", "first_id", "flips", "fresh", "gfns", "guest_mode", "in_guest",
        "index", "inj", "int_vec", "irq_seq", "kicked", "known", "l2_fault", "last", "last_id", "left", "live",
        "major", "old_vectors", "overtaken", "pf", "pf_of_l2", "prompt", "ran", "readies", "rep", "retired",
        "saved", "shared", "shared_ok", "sleep", "slept", "started", "tokens", "told", "trial", "unended",
        "unfinished_run", "unlogged", "untold", "vcpu_id", "wake_all", "wakeups", "woken",
    )  # fmt: skip

    def __init__(self, index: int, vcpu_id: int, shared: Shared, start: InitialVcpu) -> None:
        self.index, self.vcpu_id, self.shared, self.context = index, vcpu_id, shared, shared.context
        self.counts = Counts()
        self.en, self.int_vec, self.last_id = start.en, start.int_vec, start.last_id
        self.old_vectors: set[int] = set()
        self.shared_ok = True
        self.first_id: int | None = None
        self.known = start.live is not None
        self.wake_all = {None: WakeAll.PERHAPS, False: WakeAll.NO, True: WakeAll.SURELY}[start.wakeup]
        self.unended = Unended()
        self.live: dict[int, SeenWork] = {}
        self.gfns: dict[int, SeenWork] = {}
        for token, gpa in start.live or ():
            work = SeenWork(token, gpa, index, None)
            self.live[token] = self.gfns[gpa >> 12] = work
            shared.ledger.not_present(work)
        self.doubts = Doubts()
        self.overtaken: dict[int, tuple[Event, str, Event | None]] = {}  # works that were cleared, or D36
        self.retired: deque[int] = deque(maxlen=ASYNC_PF_PER_VCPU)
        self.cleared: deque[int] = deque(maxlen=2 * ASYNC_PF_PER_VCPU)
        self.apic_hw: bool | None = None
        self.apic_sw: bool | None = None
        self.guest_mode = False  # its L2 runs
        self.unfinished_run = 0  # entries that may still come before a VMRUN, or what L2 is given, is through
        self.untold = 0  # tokens that L1 was not told of
        self.areas: dict[int, bool] = {}  # by address, those that got the flags of a token: whether the last is such
        self.tokens = self.readies = 0  # how many the guest's log has been compared with
        self.saved: SavedToken | None = None
        self.boots, self.ran = 1, True  # starts of the vCPU in the guest's log; it has entered since the last
        self.told: Announced | None = None
        self.unlogged: Unlogged | None = None
        self.irq_seq, self.acked, self.prompt, self.sleep, self.kicked = 0, False, Prompt(), Sleep(), Kicked()
        self.started = start.last_id is not None  # else the trace may begin in the middle of an exit
        self.in_guest = self.delivering = False
        self.flips = False  # CR0.PG, in the exit that it is in
        self.pf: Event | None = None
        self.pf_of_l2 = self.l2_fault = False
        self.bio: Event | None = None
        self.major: Event | None = None
        self.trial: Event | None = None
        self._idle()

    def _idle(self) -> None:
        """Nothing since the last ENTRY."""
        self.busy = self.slept = self.left = self.woken = False
        self.wakeups = 0
        self.fresh: SeenWork | None = None
        self.rep: Event | None = None
        self.inj: Event | None = None
        self.batch: list[SeenReady] = []
        self.batch_irq: Event | None = None
        self.last: SeenReady | None = None

    # --- small questions

    @property
    def enabled(self) -> bool | None:
        """Whether kvm_pv_async_pf_enabled holds; None: unknown."""
        return None if self.en is None else kvm_pv_async_pf_enabled(self.en)

    @property
    def queued(self) -> int:
        """Entries surely in the queue."""
        return len(self.live) + (self.wake_all is WakeAll.SURELY)

    def say(self, rule: str, event: Event | None, message: str, *related: Event | None) -> None:
        """Report a violation."""
        self.shared.found.append(self._violation(rule, event, message, *related))

    def _violation(self, rule: str, event: Event | None, message: str, *related: Event | None) -> Violation:
        return Violation(rule, event, message, tuple(e for e in related if e is not None), self.index)

    def unwoken(self, entry: Event, message: str, np: Event | None) -> None:
        """D24, unless a worker had put its work on the done list by then, which makes the vCPU runnable, and was held
        up before it traced that (async_pf_execute): its DONE will tell."""
        if not self.live or Kind.DONE not in self.shared.recorded:
            self.say("D24", entry, message, np)
            return
        works = (token for token, work in self.live.items() if not work.done_t)
        self.doubts.add(self._violation("D24", entry, message, np), works, entry.t_ns)

    def unasked(self, entry: Event, message: str, work: SeenWork, done: Event) -> None:
        """D50, unless another work was on the done list before this one, whose worker was to ask for both, and was held
        up before it did."""
        others = [t for t, o in self.live.items() if o is not work and not (o.done_t or o.completed)]
        violation = self._violation("D50", entry, message, work.np, done)
        if not others:
            self.shared.found.append(violation)
        elif self.shared.recorded >= {Kind.WORK, Kind.MM_FAULT_RET}:
            self.doubts.add(violation, others, done.t_ns)

    def work_ended(self, token: int, returned_t: int) -> None:
        """A worker ended, which came back from its page at ``returned_t`` (ns; 0: not recorded)."""
        if self.unended.none_was(token, returned_t) and self.wake_all is WakeAll.PERHAPS:
            self.wake_all = WakeAll.SURELY

    def states(self, gpa: int) -> tuple[FaultState, ...]:
        """The states in which this vCPU may have touched the page; empty: not known."""
        faults, kernel_rip = self.context.faults, self.context.kernel_rip
        if kernel_rip is not None and self.pf is not None and self.pf.data and self.pf.gpa == gpa:
            return (FaultState(cpl=0 if self.pf.data >= kernel_rip else 3, guest_mode=self.pf_of_l2),)
        return faults.get((self.index, gpa >> 12), ()) if faults is not None else ()

    def deliverable(self, state: FaultState) -> bool:
        """kvm_can_deliver_async_pf for a fault in that state, APF being enabled (arch/x86/kvm/x86.c)."""
        always = self.en is not None and bool(self.en & EN_SEND_ALWAYS)
        if state.cpl == 0 and not always:
            return False
        if state.guest_mode:  # a guest whose write of EN was not seen asks for what it is offered
            return self.context.features.vmexit if self.en is None else bool(self.en & EN_DELIVERY_AS_PF_VMEXIT)
        return state.paging or self.shared.kernel.token_with_paging_off

    def within(self, intervals: tuple[Interval, ...] | None, t_ns: int) -> bool:
        """Whether a time is in one of the intervals."""
        return intervals is not None and any(start <= t_ns <= end for start, end in intervals)

    def _outside(self, event: Event) -> bool:
        """D02: only the own thread emits it, and not while it runs the guest.  False: the event is not usable."""
        if self.index < 0:
            self.say("D02", event, f"{event.kind.name} from a thread that is no vCPU's")
            return False
        if self.in_guest:
            self.say("D02", event, f"{event.kind.name} while the thread was in guest mode: not its own event")
        return True

    # --- a missing page

    def tried(self, event: Event) -> None:
        """kvm_try_async_get_page: D02, D21, D23, D38, and by pages.tried D30, D32 to D34.

        A TRY that nothing followed has failed (D01).
        """
        if not self._outside(event):
            return
        if self.trial is not None:
            self.failed()
        self.counts.try_ += 1
        self.trial, self.busy = event, True
        context, states = self.context, self.states(event.gpa)
        if event.data and event.data != event.gpa >> 12 and not self.guest_mode:  # else the gva is L2's
            self.say("D38", event, f"TRY says gfn {event.data:#x} and gva {event.gpa:#x}")
        if context.lapic_in_kernel is False:
            self.say("D23", event, "TRY although the LAPIC is not in the kernel")
        if self.delivering:
            self.say(
                "D21", event, f"TRY of {event.gpa:#x} while an event was being delivered, which waits for the page"
            )
        elif states and not any(s.interrupts and not s.shadow for s in states):
            self.say("D21", event, f"TRY of {event.gpa:#x}, which is touched only with interrupts blocked")
        self.shared.pages.tried(event, self.index, self.pf, self.bio)

    def failed(self) -> None:
        """The last TRY became neither NP nor REP: D01.  Its token id is used up (D04)."""
        trial, self.trial = self.trial, None
        self.counts.fail += 1
        if self.last_id is not None:
            self.last_id = self.last_id + 1 if self.last_id < LAST_ID else 1
        full = len(self.live) + (self.wake_all is not WakeAll.NO) >= ASYNC_PF_PER_VCPU
        if not full and self.known:
            message = f"TRY without NP or REP with {self.queued} of {ASYNC_PF_PER_VCPU} queued"
            self.say("D01", trial, f"{message} (unless the allocation of the work failed)")

    def _match_trial(self, event: Event) -> None:
        """The TRY that an NP or REP answers: D01, D38."""
        trial, self.trial = self.trial, None
        if trial is None:
            if self.started and Kind.TRY in self.shared.recorded:
                self.say("D01", event, f"{event.kind.name} without TRY")
        elif trial.gpa != event.gpa and not (self.shared.kernel.era_2010 and trial.gpa >> 12 == event.gpa >> 12):
            self.say("D38", event, f"TRY says gva {trial.gpa:#x}, {event.kind.name} says {event.gpa:#x}", trial)

    def _halting(self) -> None:
        self.busy = True
        self.slept = self.left = self.woken = False
        self.wakeups = 0

    def not_present(self, event: Event) -> None:
        """kvm_async_pf_not_present: D02, D01 and D38 (its TRY), D03, D04, D07, D09, D13 (the NP before).

        By pages.not_present also D30, D31, D40.
        """
        if not self._outside(event):
            return
        self._match_trial(event)
        if self.fresh is not None:
            self.say("D13", event, "NP, and the one before it was neither injected nor entered with", self.fresh.np)
            self.fresh.tokened = self.inj is not None
        self.counts.np += 1
        self._number(event)
        gfn, shared = event.gpa >> 12, self.shared
        if gfn in self.gfns:
            self.say("D07", event, f"second NP for frame {gfn:#x}, which is live", self.gfns[gfn].np)
        if self.queued >= ASYNC_PF_PER_VCPU:
            self.say("D09", event, f"NP with {self.queued} entries queued already")
        shared.seq += 1
        work = SeenWork(event.token, event.gpa, self.index, event, shared.seq, guest_mode=self.guest_mode)
        self.live[event.token] = self.gfns[gfn] = self.fresh = work
        self.inj = None
        shared.ledger.not_present(work)
        shared.pages.not_present(event, self.index, self.pf, self.bio, self.major)
        self._halting()

    def _number(self, event: Event) -> None:
        """The token of an NP: D03, D04."""
        ident = event.token >> 12
        expected = None
        if self.last_id is not None:
            expected = self.last_id + 1 if self.last_id < LAST_ID else 1
        valid = event.token & 0xFFF == self.vcpu_id & 0xFFF and 1 <= ident <= LAST_ID
        if not valid:
            self.say("D03", event, f"token {event.token:#x} is not (1..0xFFFFF) << 12 | {self.vcpu_id:#x}")
        elif expected is not None and ident != expected:
            self.say("D04", event, f"token id {ident:#x}, expected {expected:#x}")
        self.last_id = ident if valid else expected
        if self.first_id is None and valid:
            self.first_id = ident

    def repeated(self, event: Event) -> None:
        """kvm_async_pf_repeated_fault (5.10: doublefault): D02, D01 and D38 (its TRY), D08, D13, D23."""
        if not self._outside(event):
            return
        self._match_trial(event)
        self.counts.rep += 1
        if self.known and event.gpa >> 12 not in self.gfns:
            self.say("D08", event, f"REP for frame {event.gpa >> 12:#x}, which has no live NP")
        states = self.states(event.gpa)
        if self.context.hlt_exits is False and states and not any(self.deliverable(s) for s in states):
            self.say("D23", event, "REP halts a vCPU whose HLT exits are disabled")
        if self.fresh is not None:
            self.say("D13", event, "REP, and the NP before it was neither injected nor entered with", self.fresh.np)
            self.fresh = None
        self.rep = event
        self._halting()

    def injected(self, event: Event) -> None:
        """kvm_inj_exception of #PF: D02, D08, D13.  One with an error code is no token, nor is a reinjected one, unless
        it was saved."""
        if not self._outside(event):
            return
        if self.guest_mode:
            self.unfinished_run = 1
        if event.flag:
            self.counts.inj_reinjected += 1
            if not event.value:
                injected_again(self, event)
            return
        if event.value:
            return  # a #PF of the guest's own: a token has code 0
        self.counts.inj += 1
        self.busy = True
        if self.guest_mode:
            judge_injection(self, event)
        if self.rep is not None and self.fresh is None:
            self.say("D08", event, "a token is injected for a repeated fault", self.rep)
        elif self.fresh is None:
            if self.started:
                self.say("D13", event, "#PF with code 0 is injected, and no NP waits for it")
        elif self.inj is not None:
            self.say("D13", event, "#PF is injected twice for one NP", self.fresh.np, self.inj)
        else:
            self.inj = self.fresh.inj = event

    # --- its end

    def is_ready(self, event: Event) -> None:
        """kvm_async_pf_ready: D02, D20, D26, D37, D44, and of its work D05, D06, D27, D36, D29 (pages.ready)."""
        if not self._outside(event):
            return
        if self.trial is not None:
            self.failed()
        context, shared, enabled = self.context, self.shared, self.enabled
        shared.seq += 1
        if self.within(context.stopped, event.t_ns):
            self.say("D26", event, "RDY while the VM is stopped")
        if enabled:
            self._deliverable_now(event)
        wake_all = event.token == WAKE_ALL_TOKEN
        work = None if wake_all else self._dequeue(event)
        if wake_all:
            self.counts.rdy_wake_all += 1
            if event.gpa:
                self.say("D20", event, f"wake-all with gva {event.gpa:#x}")
            if self.wake_all is WakeAll.NO:
                self.say("D20", event, "wake-all, but no enable of APF has queued one")
            self.wake_all = WakeAll.NO
        else:
            self.counts.rdy += 1
        self.last = SeenReady(event, work, enabled, shared.seq)
        self.batch.append(self.last)
        self.busy = self.woken = True

    def _deliverable_now(self, event: Event) -> None:
        """A RDY although nothing could be told to the guest: D37, D44."""
        looked_up_ns = self.context.slots_change_ns
        if (self.apic_hw is False or self.apic_sw is False) and self.shared.kernel.lapic_disabled_defers:
            self.say("D37", event, "RDY while the LAPIC is disabled")
        if not self.shared_ok and not (looked_up_ns is not None and event.t_ns >= looked_up_ns):
            self.say("D44", event, "RDY while the shared area cannot be read")

    def _dequeue(self, event: Event) -> SeenWork | None:
        """The live work of a RDY: D06 (its address), D36 (its order); without one see _not_live."""
        token = event.token
        work = self.live.get(token)
        if work is None:
            self._not_live(event)
            return None
        if work.gpa != event.gpa:
            self.say("D06", event, f"RDY of token {token:#x} with gva {event.gpa:#x}, NP had {work.gpa:#x}", work.np)
        if token in self.overtaken:
            self.say("D36", *self.overtaken[token])
        self.drop(work)
        self.retired.append(token)
        if work.done_seq:
            for other in self.live.values():
                if other.done_seq and other.done_t < work.gup_end_t:
                    message = f"RDY before that of {other.token:#x}, which was completed before this work had its page"
                    if self.context.paging_flips and self.shared.kernel.cr0_pg_clears_queue:
                        self.overtaken.setdefault(other.token, (event, message, other.np))  # unless it was cleared
                    else:
                        self.say("D36", event, message, other.np)
                    break
        # kvm_arch_async_page_ready maps nothing where another MMU is in use than when the work was set up.
        self.shared.pages.ready(event, work, prefetched=work.guest_mode == self.guest_mode)
        return work

    def _not_live(self, event: Event) -> None:
        """A RDY whose token is not live on this vCPU: D02, D05, D06, D27."""
        token = event.token
        owner = next((v for v in self.shared.vcpus if v is not self and token in v.live), None)
        if owner is not None:
            work = owner.live[token]
            self.say("D02", event, f"RDY of token {token:#x}, which is live on vCPU {owner.index}", work.np)
            owner.drop(work)
            owner.retired.append(token)
        elif token in self.cleared:
            self.say("D27", event, f"RDY of token {token:#x}, which was cleared")
        elif token in self.retired:
            self.say("D05", event, f"second RDY of token {token:#x}")
        elif not (not self.known and (self.first_id is None or token >> 12 < self.first_id)):
            self.say("D06", event, f"RDY of token {token:#x}, which has no live NP")

    def drop(self, work: SeenWork) -> None:
        """Take a work off the queue."""
        self.live.pop(work.token, None)
        self.overtaken.pop(work.token, None)
        if self.gfns.get(work.gpa >> 12) is work:
            del self.gfns[work.gpa >> 12]

    def accepted(self, event: Event) -> None:
        """kvm_apic_accept_irq by this vCPU's own thread: D15, D17, D42; counted for D16."""
        if event.token:  # KVM asks for a Fixed one (arch/x86/kvm/x86.c:kvm_arch_async_page_present)
            return
        last = self.last
        if last is not None and last.irq is None:
            if self.int_vec is None and last.work is not None and last.work.tokened is None:
                last.maybe = last.maybe or event  # told before the ENTRY that says what its NP was
                return
            if self.int_vec is None and (last.work is None or last.work.tokened):
                self.int_vec = event.value  # the trace began after the MSR was written
            if event.value != self.int_vec:
                if event.value not in self.old_vectors:
                    return  # some other interrupt
                self.say("D42", event, f"vector {event.value:#x} used, int_vec is {self.int_vec or 0:#x}", last.event)
            self.interrupted(last, event)
        elif event.value == self.int_vec and self.started and self.enabled:
            self.counts.acc += 1
            self.say("D15", event, f"interrupt {event.value:#x} without a RDY before it")

    def interrupted(self, ready: SeenReady, event: Event) -> None:
        """The RDY was told by this interrupt: D17; counted for D16."""
        ready.irq = event
        if event.flag:
            self.say("D15", event, f"the ready interrupt {event.value:#x} is level-triggered", ready.event)
        self.counts.acc += 1
        self.counts.acc_lost += event.value < LOWEST_VECTOR
        if self.batch_irq is not None:
            message = "second RDY with interrupt, and the vCPU has not entered since the first"
            self.say("D17", ready.event, message, self.batch_irq)
        self.batch_irq = ready.event

    def count_undecided(self) -> None:
        """No ENTRY will decide what the last NP was: injected; a halt in which the vCPU slept; or one of the two."""
        if self.fresh is not None:
            self.counts.npt += self.inj is not None
            self.counts.nph += self.inj is None and self.slept
            self.counts.undecided += self.inj is None and not self.slept
        self.fresh = None

    def clear(self, event: Event, *, reset: bool, done_may_follow: bool) -> None:
        """kvm_clear_async_pf_completion_queue ran: what was live is owed nothing more (D05), a RDY of it breaks D27.

        :param reset: by reset, INIT or loadvm, which zero EN and INT and drop a pending injection.
        :param done_may_follow: DONEs of the cleared works may still be traced after this event.
        """
        for work in self.live.values():
            self.shared.ledger.cancel(work, event, done_may_follow)
            self.cleared.append(work.token)
        self.live.clear()
        self.gfns.clear()
        self.doubts.cleared()
        self.wake_all = WakeAll.NO
        self.known = True
        self.woken = True
        if reset:
            keep(self, loaded=event.value == LOADED)
            self.count_undecided()
            self.en, self.apic_hw, self.apic_sw, self.shared_ok = 0, None, None, True
            if event.value != LOADED:
                take_away(self)
                self.unlogged = None  # its handler was cut off
                self.guest_mode = False
                area_zeroed(self, one=event.value == INIT)
            if event.value != INIT:
                self.old_vectors.add(self.int_vec or 0)
                self.int_vec = 0
