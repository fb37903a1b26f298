# SPDX-License-Identifier: GPL-2.0-or-later
"""The protocol checker: one automaton per vCPU, fed with the events of a merged trace, says which rule breaks where.

    checker = Checker(find_kernel("nowait-6.1"), vcpus=2, context=RuleContext(pf_guest=12))
    for event in events:
        for violation in checker.feed(event):
            ...
    left = checker.finish()          # violations of the totals, and obligations still open
    checker.counts, checker.total    # what was seen
    checker.unchecked                # rules that could not be checked, and why

Memory depends on the number of vCPUs and of works in flight, not on the length of the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf

from harness.errors import ModelError
from harness.model.delivery import (
    EN_DELIVERY_AS_PF_VMEXIT,
    EN_SEND_ALWAYS,
    kvm_pv_async_pf_enabled,
    why_en_refused,
)
from harness.model.events import (
    CR0_WRITTEN,
    MSR_ASYNC_PF_ACK,
    MSR_ASYNC_PF_EN,
    MSR_ASYNC_PF_INT,
    MSR_IA32_APICBASE,
    MSR_X2APIC_SPIV,
    Event,
    Kind,
)
from harness.model.kernels import KernelModel
from harness.model.protocol.checker_types import Counts, Obligation, Unchecked, Violation
from harness.model.protocol.entry_rules import judge_entry
from harness.model.protocol.l2_rules import entered_l2, left_l2, out_of_l2
from harness.model.protocol.page_rules import VM_FAULT_MAJOR, VM_FAULT_NOT_COUNTED, Pages
from harness.model.protocol.prompt_rules import asked_again
from harness.model.protocol.ready_rules import compare, inject
from harness.model.protocol.rules import RULES, InitialVcpu, Rule, RuleContext
from harness.model.protocol.sleep_rules import WakeUps
from harness.model.protocol.token_rules import lived_on
from harness.model.protocol.total_rules import check_totals
from harness.model.protocol.vcpu_rules import SeenVcpu, Shared
from harness.model.protocol.wake_all import WakeAll
from harness.model.protocol.work_rules import Ledger

__all__ = ["ALL_KINDS", "Checker", "Counts", "InitialVcpu", "Obligation", "RuleContext", "Unchecked", "Violation"]

ALL_KINDS = frozenset(Kind)
_SLEEPS = ord("S")
_WAITS = ord("D")
_NONE: tuple[Violation, ...] = ()


class Checker:
    """Checks the rules of ``rules.RULES``.

    :param kernel: the kernel under test.
    :param vcpus: number of vCPUs.
    :param int_vec: vector in MSR_KVM_ASYNC_PF_INT before the first write of it.
    :param en: MSR_KVM_ASYNC_PF_EN before the first write of it; None: unknown.
    :param first_id: id of the first token of each vCPU (1 if the trace begins before the VM); None: unknown, and
        the first exit of each vCPU may be cut off by the start of the trace.
    :param initial: overrides int_vec, en and first_id, for each vCPU.
    :param vcpu_ids: KVM's ids of the vCPUs (the low 12 bits of tokens); the indices if not given.
    :param context: what the trace does not say.
    :param recorded: kinds of events that the trace has.  Rules that need others are not checked.
    """

    def __init__(
        self,
        kernel: KernelModel,
        vcpus: int,
        *,
        int_vec: int = 0xF3,
        en: int | None = 0,
        first_id: int | None = None,
        initial: Sequence[InitialVcpu] | None = None,
        vcpu_ids: Sequence[int] | None = None,
        context: RuleContext | None = None,
        recorded: frozenset[Kind] = ALL_KINDS,
    ) -> None:
        if vcpus < 1 or (initial is not None and len(initial) != vcpus) or (vcpu_ids and len(vcpu_ids) != vcpus):
            raise ModelError(f"{vcpus} vCPUs, but initial states or ids for another number of them")
        self.kernel = kernel
        self.context = context or RuleContext()
        self.recorded = recorded
        self._found: list[Violation] = []
        self._done = 0
        self._returned: dict[int, int] = {}  # by kworker: when it began its work, or last came back from a page fault
        self._kicks: set[int] = set()  # kworkers that have kicked a vCPU since
        self._pages = Pages(kernel, self.context, recorded, self._found.append)
        self._seen = self._pages.seen
        self._ledger = Ledger()
        self._wake_ups = WakeUps()
        self._vcpus: list[SeenVcpu] = []
        self._shared = Shared(kernel, self.context, recorded, self._ledger, self._found, self._pages, self._vcpus)
        last = None if first_id is None else first_id - 1
        same = InitialVcpu(en=en, int_vec=int_vec, last_id=last, live=None if last is None and en != 0 else ())
        for index in range(vcpus):
            vcpu_id = vcpu_ids[index] if vcpu_ids else index
            self._vcpus.append(SeenVcpu(index, vcpu_id, self._shared, initial[index] if initial else same))
        self._vcpus.append(SeenVcpu(-1, -1, self._shared, same))  # threads that are no vCPU's
        self._sees_kicks = recorded >= {Kind.KICK, Kind.MM_FAULT_RET, Kind.WORK, Kind.ACC, Kind.WRMSR}
        self._sees_sleep = recorded >= {Kind.MM_FAULT, Kind.USER_EXIT, Kind.DONE}
        self._handlers = self._table()

    # --- feeding

    def feed(self, event: Event) -> Sequence[Violation]:
        """Take the next event; what it breaks, mostly nothing.

        :raise ModelError: an event of a vCPU that the checker was not told of.
        """
        try:
            self._handlers[event.kind](event)
        except IndexError:
            if event.vcpu < len(self._vcpus) - 1:
                raise
            raise ModelError(f"event of vCPU {event.vcpu}, the VM has {len(self._vcpus) - 1}") from None
        if self._found:
            found = self._found[:]
            self._found.clear()
            return found
        return _NONE

    def finish(self, context: RuleContext | None = None) -> list[Violation | Obligation]:
        """The trace ended: rules about totals, and what is still owed.

        :param context: replaces the constructor's for the totals (counters are read last).
        """
        if context is not None:
            self.context = context
        left: list[Violation | Obligation] = []
        for vcpu in self._vcpus[:-1]:
            left += vcpu.doubts.left()
            left += _owed(vcpu)
            vcpu.count_undecided()
            compare(vcpu)
            if self.context.log_ends_first:
                lived_on(vcpu)
        left += self._found
        live = {id(work) for vcpu in self._vcpus for work in vcpu.live.values()}
        left += self._pages.unsubmitted()
        left += self._ledger.finish(live)
        untold = tuple((v.untold, v.areas) for v in self._vcpus[:-1])
        left += check_totals(self.kernel, self.context, self.counts, self._compared(), self._pages.touched, untold)
        return left

    def _compared(self) -> tuple[tuple[int, int], ...]:
        return tuple((v.tokens, v.readies) for v in self._vcpus[:-1])

    # --- what was seen

    @property
    def counts(self) -> tuple[Counts, ...]:
        """By vCPU."""
        return tuple(vcpu.counts for vcpu in self._vcpus[:-1])

    @property
    def total(self) -> Counts:
        """Over all vCPUs."""
        total = Counts(done=self._done)
        for vcpu in self._vcpus:
            total.add(vcpu.counts)
        return total

    @property
    def unchecked(self) -> tuple[Unchecked, ...]:
        """The rules that are not, or only in part, checked, and why."""
        return tuple(filter(None, (self._why_not(rule) for rule in RULES.values())))

    def _why_not(self, rule: Rule) -> Unchecked | None:
        kernel = self.kernel
        if not rule.holds_for(kernel):
            return Unchecked(rule.id, f"does not hold for {kernel.name}")
        kinds = [kind.name for kind in rule.kinds if kind not in self.recorded]
        if kinds:
            return Unchecked(rule.id, f"the trace has no {', '.join(kinds)}")
        if rule.id in ("D01", "D08") and not all(vcpu.known for vcpu in self._vcpus[:-1]):
            return Unchecked(rule.id, "what was queued when the trace began is not known", True)
        fields = [name for name in rule.context if getattr(self.context, name) is None]
        return Unchecked(rule.id, f"not known: {', '.join(fields)}", rule.partly) if fields else None

    # --- one small function for each kind of event

    def _table(self) -> list[Callable[[Event], None]]:
        handlers: list[Callable[[Event], None]] = [self._ignore] * (max(Kind) + 1)
        for kind, handler in {
            Kind.PF: self._pf,
            Kind.TRY: lambda e: self._vcpus[e.vcpu].tried(e),
            Kind.NP: lambda e: self._vcpus[e.vcpu].not_present(e),
            Kind.REP: lambda e: self._vcpus[e.vcpu].repeated(e),
            Kind.DONE: self._completed,
            Kind.RDY: self._ready,
            Kind.INJ: self._injected,
            Kind.INJ_OTHER: self._awake,
            Kind.ACC: self._accepted,
            Kind.ENTRY: self._entry,
            Kind.EXIT: self._exit,
            Kind.WRMSR: self._wrmsr,
            Kind.OUT: self._out,
            Kind.IN: self._in,
            Kind.WAKING: self._waking,
            Kind.BIO: self._bio,
            Kind.WAKEUP: self._wakeup,
            Kind.USER_EXIT: self._user_exit,
            Kind.VIRQ: self._virq,
            Kind.UNMAP: self._pages.unmapped,
            Kind.MM_FAULT: self._mm_fault,
            Kind.MM_FAULT_RET: self._mm_fault_ret,
            Kind.CLEAR: self._clear,
            Kind.WORK: self._work,
            Kind.WORK_END: self._work_end,
            Kind.KICK: lambda e: self._kicks.add(e.tid),
            Kind.L2_ENTRY: lambda e: entered_l2(self._vcpus[e.vcpu]),
            Kind.L2_OUT: lambda e: out_of_l2(self._vcpus[e.vcpu], e),
            Kind.L2_EXIT: lambda e: left_l2(self._vcpus[e.vcpu], e),
        }.items():
            handlers[kind] = handler
        return handlers

    def _ignore(self, event: Event) -> None:
        pass

    def _entry(self, event: Event) -> None:
        """kvm_entry: judges what has gathered since the last one (entry_rules: D11, D13, D15, D18, D22 to D25, D39);
        what should have been told before it (D50)."""
        vcpu = self._vcpus[event.vcpu]
        if vcpu.flips:  # arch/x86/kvm/x86.c:kvm_post_set_cr0, in the exit
            vcpu.clear(event, reset=False, done_may_follow=True)
            vcpu.flips = False
        vcpu.prompt.enters(vcpu, event)
        if vcpu.busy:
            judge_entry(vcpu, event)
        vcpu.in_guest = vcpu.started = vcpu.ran = True
        vcpu.sleep.enters(event)

    def _exit(self, event: Event) -> None:
        vcpu = self._vcpus[event.vcpu]
        vcpu.in_guest = False
        vcpu.started = True
        vcpu.sleep.ran = event.line
        vcpu.prompt.leaves()
        vcpu.delivering = event.flag
        if vcpu.context.paging_flips and self.kernel.cr0_pg_clears_queue:
            vcpu.flips = event.value == CR0_WRITTEN  # the program of the probe guest writes it for CR0.PG alone

    def _pf(self, event: Event) -> None:
        """kvm_page_fault: D29, D51; what is read and counted from here on belongs to it (D30, D31)."""
        vcpu = self._vcpus[event.vcpu]
        vcpu.counts.pf += 1
        vcpu.pf, vcpu.pf_of_l2 = event, vcpu.guest_mode
        vcpu.bio = vcpu.major = None
        vcpu.prompt.faults(vcpu, event)
        if event.gpa >> 12 in self._seen:
            self._pages.fault(event, event.vcpu)

    def _completed(self, event: Event) -> None:
        """kvm_async_pf_completed: D02, and by the ledger D10, D12, D27; from here on its RDY is due (D50)."""
        self._done += 1
        self._shared.seq += 1
        if not event.worker or event.vcpu >= 0:
            self._vcpus[event.vcpu].say("D02", event, f"DONE of {event.gpa:#x} is not from a kworker")
        self._pages.completed(event)
        returned = self._returned.pop(event.tid, 0)
        waiting, sure = self._ledger.waiting(event.gpa), self._ledger.only(event.gpa) is not None
        if sure and waiting and event.tid not in self._kicks and self._sees_kicks:
            vcpu = self._vcpus[waiting[0].vcpu]
            vcpu.kicked.completed(vcpu, waiting[0], event, returned)
        for work in waiting:
            self._vcpus[work.vcpu].woken = True
            self._found += self._vcpus[work.vcpu].doubts.worker_done(work.token, returned, sure=sure)
            if sure:
                self._vcpus[work.vcpu].work_ended(work.token, returned)
        self._found += self._ledger.done(event, self._shared.seq, returned)
        self._found += self._wake_ups.goes_on(event)
        if Kind.WAKING in self.recorded:
            self._wake_ups.completed(event, (self._vcpus[work.vcpu] for work in waiting))
        for work in waiting[:1]:
            if work.done_seq == self._shared.seq:
                self._vcpus[work.vcpu].prompt.completed.append((work, event))

    def _ready(self, event: Event) -> None:
        """kvm_async_pf_ready."""
        vcpu = self._vcpus[event.vcpu]
        vcpu.kicked.ready(vcpu, event)
        vcpu.is_ready(event)

    def _accepted(self, event: Event) -> None:
        """kvm_apic_accept_irq: ends a halt (D24); D15, D17, D42."""
        if event.vcpu >= 0:
            vcpu = self._vcpus[event.vcpu]
            vcpu.woken = True
            vcpu.accepted(event)
            vcpu.sleep.accepted(event)
            if vcpu.last is not None and vcpu.last.irq is event:
                vcpu.sleep.owes, vcpu.kicked.presents = event, False
            if vcpu.batch and vcpu.int_vec in (None, event.value):
                vcpu.prompt.interrupts()

    def _awake(self, event: Event) -> None:
        """An exception other than #PF: ends a halt (D24)."""
        self._vcpus[event.vcpu].woken = self._vcpus[event.vcpu].prompt.injecting = True

    def _injected(self, event: Event) -> None:
        """kvm_inj_exception of #PF: D02, D08, D13."""
        self._vcpus[event.vcpu].prompt.injecting = True
        self._vcpus[event.vcpu].injected(event)

    def _virq(self, event: Event) -> None:
        """kvm_inj_virq: ends a halt (D24); what the guest finds in its handler (D39)."""
        vcpu = self._vcpus[event.vcpu]
        vcpu.woken = True
        vcpu.sleep.pending.pop(event.value, None)
        vcpu.prompt.interrupted(ready=event.value == vcpu.int_vec or event.value in vcpu.old_vectors)
        inject(vcpu, event.value)

    def _out(self, event: Event) -> None:
        """sched_switch away from the vCPU thread: in state S it sleeps, as a halt does (D13, D24, D25).

        If it sleeps, in whatever state, and its TRY has become nothing yet, it waits for the page itself.
        """
        vcpu = self._vcpus[event.vcpu]
        if vcpu.trial is not None and event.value in (_SLEEPS, _WAITS):
            vcpu.failed()
        # Else QEMU sleeps, in a stop for instance; or it is behind an INIT, and waits for its SIPI.
        if event.value == _SLEEPS and not vcpu.left and vcpu.sleep.init is None:
            vcpu.slept = True
        if self._sees_sleep:
            vcpu.sleep.begins(vcpu, event)

    def _in(self, event: Event) -> None:
        """sched_switch to the vCPU thread: D53."""
        vcpu = self._vcpus[event.vcpu]
        vcpu.sleep.ends(event)
        self._wake_ups.woken(vcpu.index)

    def _waking(self, event: Event) -> None:
        """sched_waking of a vCPU's thread: D53 to D55."""
        if self._sees_sleep:
            vcpu = self._vcpus[event.value]
            vcpu.sleep.wakes(vcpu, event, at_work=event.tid in self._returned)
        self._wake_ups.woken(event.value)

    def _user_exit(self, event: Event) -> None:
        """kvm_userspace_exit: KVM_RUN returned, which ends a halt (D24); QEMU may ask for any page (D56)."""
        vcpu = self._vcpus[event.vcpu]
        vcpu.prompt.out = event.line
        vcpu.left = vcpu.woken = True

    def _wakeup(self, event: Event) -> None:
        """kvm_vcpu_wakeup: D25."""
        vcpu = self._vcpus[event.vcpu]
        vcpu.wakeups += 1
        halted = (vcpu.fresh is not None and vcpu.inj is None) or vcpu.rep is not None
        if halted and not vcpu.in_guest and not self.kernel.halt_polls:
            cause = vcpu.rep or (vcpu.fresh.np if vcpu.fresh is not None else None)
            vcpu.say("D25", event, "kvm_vcpu_wakeup for the halt of a missing page", cause)

    def _bio(self, event: Event) -> None:
        """block_bio_queue of a read from a device that pages are read from: D30."""
        devices = self.context.read_devices
        if event.flag and devices is not None and event.dev in devices:
            self._vcpus[event.vcpu].bio = event
            self._pages.read(event)

    def _work(self, event: Event) -> None:
        self._returned[event.tid] = event.t_ns
        self._kicks.discard(event.tid)
        self._found += self._wake_ups.goes_on(event)

    def _work_end(self, event: Event) -> None:
        """async_pf_execute has returned: D53."""
        self._found += self._wake_ups.goes_on(event)

    def _mm_fault(self, event: Event) -> None:
        """handle_mm_fault was called: D30, D36; of a page that the guest was told of (D56); a worker goes on (D53)."""
        self._pages.begins(event)
        self._vcpus[event.vcpu].sleep.in_fault = True
        asked_again(self._vcpus[event.vcpu], event)
        self._found += self._wake_ups.goes_on(event)

    def _mm_fault_ret(self, event: Event) -> None:
        """handle_mm_fault returned: D30; a major fault that was counted (D31)."""
        self._pages.returns(event)
        self._vcpus[event.vcpu].sleep.in_fault = False
        if event.worker:
            self._returned[event.tid] = event.t_ns
            self._kicks.discard(event.tid)
        if event.value & VM_FAULT_MAJOR and not event.value & VM_FAULT_NOT_COUNTED:
            self._vcpus[event.vcpu].major = event

    def _clear(self, event: Event) -> None:
        """kvm_clear_async_pf_completion_queue by a reset or a CR0.PG change: D05, D27."""
        self._vcpus[event.vcpu].clear(event, reset=not event.flag, done_may_follow=True)
        self._vcpus[event.vcpu].kicked.unsure = True
        if not event.flag:
            self._vcpus[event.vcpu].sleep.begins_anew(event)

    def _wrmsr(self, event: Event) -> None:
        """kvm_msr, written: EN (D20, D27, D44), INT (D42), ACK (D19), the LAPIC's two switches (D37)."""
        msr, vcpu = event.value, self._vcpus[event.vcpu]
        if msr == MSR_ASYNC_PF_EN:
            _write_en(vcpu, event)
        elif msr == MSR_ASYNC_PF_INT and not event.flag:
            vcpu.old_vectors.add(vcpu.int_vec or 0)
            vcpu.int_vec = event.data & 0xFF
            vcpu.old_vectors.discard(vcpu.int_vec)
        elif msr == MSR_ASYNC_PF_ACK and event.data & 1 and not event.flag:
            vcpu.counts.ack += 1
            vcpu.acked = True
            vcpu.sleep.acknowledges()
            vcpu.kicked.acknowledges(event)
            vcpu.prompt.acknowledged()
        elif msr == MSR_IA32_APICBASE and not event.flag:
            vcpu.apic_hw = bool(event.data & 0x800)
            vcpu.prompt.bound = -inf if vcpu.apic_hw else vcpu.prompt.bound
        elif msr == MSR_X2APIC_SPIV and not event.flag:
            vcpu.apic_sw = bool(event.data & 0x100)
            vcpu.prompt.bound = -inf if vcpu.apic_sw else vcpu.prompt.bound


def _write_en(vcpu: SeenVcpu, event: Event) -> None:
    """A write of MSR_KVM_ASYNC_PF_EN, traced after its effect (kvm_pv_enable_async_pf; behaviour.md B.2, B.9, B.10).

    Enabling queues the wake-all of D20, disabling clears (D27); a refused write may unbind the area (D44).
    """
    enables = kvm_pv_async_pf_enabled(event.data)
    if event.flag:
        if enables and not why_en_refused(vcpu.context.features, event.data):
            vcpu.shared_ok = False  # the area could not be bound
            if not vcpu.shared.kernel.en_needs_shared_area:
                # Stored, but who is told (send_user_only, delivery_as_pf_vmexit) stays as the last one taken has it.
                told = EN_SEND_ALWAYS | EN_DELIVERY_AS_PF_VMEXIT if vcpu.enabled else 0
                vcpu.en = event.data & ~told | (vcpu.en or 0) & told
        return
    vcpu.en = event.data
    if not enables:
        vcpu.clear(event, reset=False, done_may_follow=not vcpu.shared.kernel.always_flush_work)
        return
    vcpu.prompt.bound = vcpu.prompt.bound if vcpu.shared_ok else event.t_ns
    vcpu.shared_ok = True
    if vcpu.wake_all is WakeAll.SURELY or any(work.done_seq for work in vcpu.live.values()):
        return  # the done list is not empty: no wake-all
    unsure = vcpu.live or not vcpu.known  # a live work may have ended a moment ago
    vcpu.unended.begin(vcpu.live if vcpu.known else (), event.t_ns)
    vcpu.wake_all = WakeAll.PERHAPS if unsure else WakeAll.SURELY
    vcpu.sleep.enabled = event


def _left_waiting(vcpu: SeenVcpu) -> bool:
    """Something waited when the guest freed the slot, or gave it an area that can be read, and nothing has asked KVM to
    look at it since: all waits on."""
    freed = max(vcpu.context.slot_freed.get(vcpu.index, -inf), vcpu.prompt.bound)
    enabled = vcpu.sleep.enabled
    woken = vcpu.wake_all is WakeAll.SURELY and enabled is not None and enabled.t_ns <= freed
    return woken or any(work.done_seq and work.done_t <= freed for work in vcpu.live.values())


def _owed(vcpu: SeenVcpu) -> Iterator[Violation | Obligation]:
    """What a vCPU still waits for when the trace ends: D05, D13, D16, D20."""
    stuck = bool(vcpu.enabled) and (not vcpu.shared_ok or vcpu.apic_hw is False or vcpu.apic_sw is False)
    stuck = stuck or vcpu.index in vcpu.context.slot_taken or _left_waiting(vcpu)
    stuck = stuck or (vcpu.context.paging_flips and vcpu.shared.kernel.cr0_pg_clears_queue)
    for work in vcpu.live.values():
        yield Obligation("D05", work.np, f"NP of token {work.token:#x} has no RDY", vcpu.index, stuck)
    if vcpu.fresh is not None and vcpu.inj is not None:
        yield Obligation("D13", vcpu.inj, "token injected, but the vCPU never entered", vcpu.index)
    if vcpu.wake_all is WakeAll.SURELY:
        yield Obligation("D20", None, "APF was enabled, but its wake-all was never delivered", vcpu.index, stuck)
    for ready in vcpu.batch:
        if ready.irq is not None and not ready.lost:
            yield Obligation("D16", ready.irq, "interrupt accepted, but the vCPU never entered", vcpu.index)
