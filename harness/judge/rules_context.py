# SPDX-License-Identifier: GPL-2.0-or-later
"""What the protocol rules are told besides the trace: from the plan, the guest's log and the counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.contract.plan import (
    PAGE_SIZE,
    Access,
    Backing,
    By,
    GuestKind,
    HostWord,
    Op,
    PageStart,
    Plan,
    SwapKind,
    area_page,
    starts_anew,
)
from harness.contract.probe_abi import Record, SvmExit, page_word
from harness.contract.words import EndStatus
from harness.evidence.agent_steps import first_begun_ns
from harness.evidence.decode import Evidence
from harness.evidence.guestlog import GuestLog
from harness.evidence.host_log import GUEST_LOG, LOG
from harness.judge.counted_faults import uncounted_faults, uncounted_pages
from harness.judge.deaf_vcpus import deaf_vcpus
from harness.judge.early_retries import asked_again, early_retries, forbidden_retries
from harness.judge.fixed_entries import fixed_entries_bound, fixed_for_ready_bound, unfixed_bound
from harness.judge.kept_lock import kept_lock
from harness.judge.log_cut import runs_on
from harness.judge.own_faults import own_faults
from harness.judge.ready_vectors import ready_vectors
from harness.judge.recorded_actions import progress
from harness.judge.stray_wakes import stray_wakes
from harness.judge.swap_slots import clean_pages, swap_slots
from harness.judge.taken_folios import in_one_folio
from harness.judge.token_slot import token_slots
from harness.judge.userfault_waits import userfault_waits
from harness.judge.zeroed_words import overwritten_tokens
from harness.model.events import LOADED, Kind
from harness.model.kernels import KernelModel
from harness.model.known_faults import KNOWN_FAULTS
from harness.model.outcomes import Count
from harness.model.protocol.rules import FaultState, InitialVcpu, Interval, LoggedStart, PageAfter, RuleContext
from harness.model.simulation.situation import Prediction
from harness.prediction import linux_guest, pv_features

_KVM_STATS = ("PF_TAKEN", "PF_FIXED", "PF_SPURIOUS", "PF_EMULATE", "HALT_EXITS", "HALT_ATTEMPTED_POLL")
_EVENTINJ_VALID = 1 << 31
_PANICS = frozenset({"F2", "F4"})
"""Findings by which a Linux L1 takes a page fault of its kernel for "page not present"."""
_OTHERS = {HostWord.LOCK_READ, HostWord.RECLAIM}
"""Others than the vCPUs read pages, or take them away."""
_OF_ANY_THREAD = Kind.ACC
"""The thread of another vCPU may accept an interrupt for this one."""
KERNEL_HALF = 1 << 63
"""A Linux guest runs its kernel at addresses of the upper half, its programs below (EN is off before that holds)."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the rules are told of a prediction.

    ``majors``: the vCPU thread's major faults; ``known``: the findings that the kernel has to show.
    """

    majors: Count | None = None
    known: tuple[str, ...] = ()

    @classmethod
    def by(cls, prediction: Prediction) -> Expected:
        return cls(prediction.totals.get("MAJ_V"), prediction.known_faults)


NOTHING = Expected()
KNOW_A_PREDICTION = frozenset({"D28", "D31"})
"""The rules that look at what context_of() has of a prediction (sync_majors, guest_panics, host_warns)."""


def context_of(evidence: Evidence, kernel: KernelModel, expected: Expected) -> RuleContext:
    """Fields that the evidence does not give stay None, so that their rules are listed as not checked."""
    plan, facts = evidence.plan, evidence.facts
    vcpus = range(plan.guest.vcpus)
    probe = plan.guest.kind is GuestKind.PROBE
    lapic_moves = any(i.op is Op.LAPIC for i in plan.items) or not plan.guest.apf.lapic_enabled
    area_moves = plan.guest.apf.en_gpa >= 0 or any(i.op is Op.WRMSR for i in plan.items)
    acts = {a.do for group in plan.host_actions for a in group} | {a.do for t in plan.timed for a in t.actions}
    single_vcpu = plan.guest.vcpus == 1
    data = page_word(plan.guest.apf.en_gpa, plan.nonce) & 0xFFFFFFFF if area_page(plan) else 0
    majors = expected.majors
    log = evidence.guest
    known = frozenset(expected.known)
    slots = token_slots(evidence)
    private_file = plan.memory.backing is Backing.FILE and not plan.memory.share
    return RuleContext(
        faults=_faults(plan) if probe else None,
        kernel_rip=None if probe else KERNEL_HALF,
        features=pv_features(plan, kernel),
        lapic_in_kernel=plan.guest.irqchip != "off",
        hlt_exits=not plan.guest.cpu_pm,
        paging_flips=_flips(plan),
        stopped=_stopped(evidence),
        ticks=any(i.op is Op.TIMER for i in plan.items) if probe else None,
        nmis=_nmis(evidence),
        lapic_stays=None if lapic_moves or not probe else True,
        area_stays=None if area_moves or not probe else True,
        slots_change_ns=first_begun_ns(evidence.steps, HostWord.SAVEVM),
        memory=plan.memory.backing.memory,
        userfaultfd=plan.swap.kind is SwapKind.USERFAULT,
        single_toucher=_single_toucher(plan) and not acts & _OTHERS if probe else None,
        page_cluster=plan.swap.page_cluster,
        swap_synchronous=plan.swap.kind is SwapKind.ZRAM,
        read_devices=frozenset({facts.swap_dev}) if facts and facts.swap_dev else None,
        slots=places(evidence),
        loops=frozenset(gfn for read in evidence.gate.reads if read.error for gfn in read.pages)
        if evidence.gate
        else frozenset(),
        slot_taken=slots.taken,
        slot_freed=slots.freed,
        shared_tail_zero=_tails(evidence),
        shared_flags=_flags(evidence),
        guest_panics=not probe and bool(_PANICS & known),
        host_warns=tuple(KNOWN_FAULTS[name].warns for name in sorted(known) if KNOWN_FAULTS[name].warns),
        warn_once_cleared=facts is None or facts.has.debugfs,
        guest_flags={v: tuple(_left_behind(log, v, data)) for v in vcpus} if log else None,
        l2_always_exits=_l2_always_exits(plan, kernel, rewritten=HostWord.SYNC in acts),
        rewrites=HostWord.SYNC in acts,
        other_areas=_other_areas(evidence),
        area_of_data=plan.guest.apf.en_gpa if area_page(plan) else None,
        enabled_before=not probe and plan.guest.workload != "boot" and linux_guest(plan).enables,
        guest_ended=evidence.end.status is EndStatus.DONE and not starts_anew(plan),
        hyp=_hyp(evidence),
        private_file=frozenset(page.gpa >> 12 for page in plan.pages) if private_file and probe else None,
        rss_anon_pages=evidence.anon_growth if private_file and probe else None,
        pages_after=_pages_after(evidence) if not starts_anew(plan) else None,
        memory_left=_memory_left(evidence, kernel),
        ram_file_open=evidence.left is not None and evidence.left.opened,
        early_retries=early_retries(evidence),
        userfault_waits=userfault_waits(evidence),
        forbidden_retries=forbidden_retries(evidence),
        asked_again=asked_again(evidence),
        deaf_vcpus=deaf_vcpus(evidence),
        kept_lock=kept_lock(evidence),
        uncounted_faults=uncounted_faults(evidence, kernel),
        uncounted_pages=uncounted_pages(evidence),
        swap_slots=swap_slots(evidence, kernel),
        unlisted_pages=_unlisted(evidence),
        pages_of_others=_of_others(evidence),
        misflagged_pages=_misflagged(evidence),
        lost_words=_lost_words(evidence),
        overwritten_tokens=overwritten_tokens(evidence),
        events_left=_events_left(log) if log else None,
        fixable=fixed_entries_bound(evidence) if probe else None,
        unfixed=unfixed_bound(evidence) if probe else None,
        fixed_for_ready=fixed_for_ready_bound(evidence, kernel) if probe else None,
        clean_pages=clean_pages(evidence, kernel),
        lost_refaults=_lost_refaults(evidence, kernel),
        stray_wakes=stray_wakes(evidence),
        ram_file_locked=evidence.left is not None and evidence.left.locked,
        slots_left=evidence.left.slots if evidence.left else None,
        works_left=evidence.left.works if evidence.left else None,
        contexts_left=evidence.left.contexts if evidence.left else None,
        guest_tokens={v: _tokens(log, v) for v in vcpus} if log else None,
        guest_readies={v: _readies(log, v) for v in vcpus} if log else None,
        guest_boots={v: tuple(_boots(log, v)) for v in vcpus} if log else None,
        guest_hlts=_hlts(evidence),
        halts=_halts(evidence),
        hlts_end=_hlts_end(evidence),
        log_ends_first=not runs_on(evidence),
        pf_guest=evidence.counters.get("PF_GUEST"),
        kvm_stats=_kvm_stats(evidence.counters),
        all_recorded=probe and evidence.end.status is EndStatus.DONE and not starts_anew(plan),
        major_faults={0: evidence.counters["MAJ_V"] - own_faults(evidence).major}
        if single_vcpu and "MAJ_V" in evidence.counters
        else None,
        sync_majors={0: majors} if single_vcpu and majors is not None else None,
        host_trouble=evidence.host_log.against_the_kernel if LOG in evidence.files else None,
        guest_trouble=evidence.guest_log.against_the_kernel if GUEST_LOG in evidence.files else None,
    )


def initial(plan: Plan) -> tuple[InitialVcpu, ...]:
    """The vCPUs at the first event: none has enabled async page faults yet.

    The probe guest does so when it is let go, a Linux guest of the boot workload is traced from its first instruction;
    other Linux guests have booted before the trace begins, so nothing is known of them.
    """
    if plan.guest.kind is GuestKind.LINUX and plan.guest.workload != "boot":
        start = InitialVcpu(en=None, last_id=None, live=None, wakeup=None)
    else:
        start = InitialVcpu(en=0, last_id=0)
    return tuple(start for _ in range(plan.guest.vcpus))


def _stopped(evidence: Evidence) -> tuple[Interval, ...] | None:
    """On the trace clock: from QEMU's answer to a stop, when no vCPU is in KVM_RUN, until a cont was begun or the trace
    ended.  A cont on its way at the answer may come behind it.  None: the agent did not let the guest go."""
    go, end, actions = progress(evidence.steps)
    if go < 0:
        return None
    conts = [action for action in actions if action.do == HostWord.CONT]
    stops = [action.end_ns for action in actions if action.do == HostWord.STOP and action.done]
    alone = [at for at in stops if not any(cont.start_ns < at < cont.end_ns for cont in conts)]
    until = [min((cont.start_ns for cont in conts if cont.start_ns >= at), default=end) for at in alone]
    return tuple((go + first, go + last) for first, last in zip(alone, until, strict=True))


def _nmis(evidence: Evidence) -> tuple[Interval, ...]:
    """On the trace clock: the agent's inject-nmi, up to the answer."""
    go, _, actions = progress(evidence.steps)
    given = (action for action in actions if action.do == HostWord.NMI)
    return tuple((go + action.start_ns, go + action.end_ns) for action in given) if go >= 0 else ()


def _flips(plan: Plan) -> bool:
    return any(i.op is Op.PAGING or i.no_paging for i in plan.items)


def _faults(plan: Plan) -> Mapping[tuple[int, int], tuple[FaultState, ...]]:
    found: dict[tuple[int, int], list[FaultState]] = {}
    for item in plan.items:
        if item.op is Op.TOUCH:
            l2 = plan.guest.l2
            allowed = l2.l1_interrupts if item.level == 2 and l2.intr_masking else item.interrupts
            blocked = item.shadow or item.by is not By.INSTRUCTION
            state = FaultState(item.cpl, allowed, blocked, not item.no_paging, item.level == 2)
            found.setdefault((item.vcpu, item.gpa >> 12), []).append(state)
    return {key: tuple(states) for key, states in found.items()}


def _single_toucher(plan: Plan) -> bool:
    owner: dict[int, int] = {}
    return all(owner.setdefault(i.gpa, i.vcpu) == i.vcpu for i in plan.items if i.op is Op.TOUCH)


def places(evidence: Evidence) -> Mapping[int, int] | None:
    """gfn -> first sector of the page on its device.  A swap area covers its device from the first sector on
    (mm/swapfile.c:setup_swap_extents); where the pages of a file lie is what FIEMAP told the agent."""
    found: dict[int, int] = {}
    for page in evidence.plan.pages:
        proof = evidence.precondition.pages.get(page.gpa) if evidence.precondition else None
        if proof is None:
            continue
        if page.start in (PageStart.SWAPPED, PageStart.ZERO_SWAPPED) and proof.swap_offset:
            found[page.gpa >> 12] = proof.swap_offset * 8
        elif evidence.plan.memory.backing is Backing.FILE and proof.sector is not None:
            found[page.gpa >> 12] = proof.sector
    return found or None


def _memory_left(evidence: Evidence, kernel: KernelModel) -> int | None:
    """The counts of a cgroup are exact where its per-CPU parts can be folded in before they are read."""
    left = evidence.left
    if left is None or left.mapped is None or kernel.memcg_events_batched:
        return None
    return max(left.mapped, left.listed or 0, left.unlisted or 0, left.cached or 0)


def _l2_always_exits(plan: Plan, kernel: KernelModel, *, rewritten: bool) -> bool:
    """L1 exits on each interrupt, and nothing masks one (svm.c:svm_interrupt_blocked): neither IF of L1 at VMRUN, nor,
    without V_INTR_MASKING, of L2, whose handler of what is L1's has it off."""
    l2 = plan.guest.l2
    if not l2.intercept_intr or l2.inject or l2.virq:
        return False
    if l2.intr_masking:
        return l2.l1_interrupts
    return kernel.l2_gets_no_token and not rewritten and all(i.interrupts for i in plan.items if i.level == 2)


def _tails(evidence: Evidence) -> Mapping[int, bool] | None:
    return (evidence.after.shared_tail_zero or None) if evidence.after else None


def _flags(evidence: Evidence) -> Mapping[int, int] | None:
    """The probe's handler clears the word of each token; nothing else may leave one there (a halt, a ready)."""
    if evidence.end.status is not EndStatus.DONE or evidence.after is None:
        return None
    return evidence.after.shared_flags or None


def _other_areas(evidence: Evidence) -> Mapping[int, tuple[int, bool]] | None:
    """As _tails and _flags, of areas that EN was moved to; one in a page of the plan holds that page's data before."""
    left = evidence.after.areas if evidence.after else None
    if evidence.end.status is not EndStatus.DONE or left is None or evidence.guest is None:
        return None
    data = area_page(evidence.plan)
    return {gpa: (area.flags, area.tail_zero or gpa & -PAGE_SIZE == data) for gpa, area in left.items()}


def _hyp(evidence: Evidence) -> Mapping[int, int] | None:
    """The probe's handler logs each of its interrupts; one that waits in the LAPIC when the program has ended waits for
    ever, because a vCPU then halts with IF=0.  Of Linux guests only of one that is traced from its first instruction:
    others count tokens of before the trace as well."""
    plan, log = evidence.plan, evidence.guest
    if evidence.end.status is not EndStatus.DONE:
        return None
    if log is not None:
        waiting = _waiting(evidence)
        return {v: len(_readies(log, v)) + len(waiting[v]) for v in range(plan.guest.vcpus)}
    row = evidence.result.hyp[-1] if evidence.result and plan.guest.workload == "boot" else None
    return dict(enumerate(row)) if row is not None else None


def _waiting(evidence: Evidence) -> tuple[set[int], ...]:
    """By vCPU: interrupt vectors of async page faults that its LAPIC accepted, holds, and that were not injected."""
    plan = evidence.plan
    vectors = ready_vectors(plan)
    waiting: tuple[set[int], ...] = tuple(set() for _ in range(plan.guest.vcpus))
    for event in evidence.of(Kind.ACC, Kind.VIRQ, Kind.CLEAR):
        if event.kind is Kind.CLEAR:
            if not event.flag and event.value != LOADED:
                waiting[event.vcpu].clear()
        elif event.kind is Kind.ACC and event.value in vectors and 0 <= event.vcpu < len(waiting) and event.value >= 16:
            waiting[event.vcpu].add(event.value)
        elif event.kind is Kind.VIRQ and 0 <= event.vcpu < len(waiting):
            waiting[event.vcpu].discard(event.value)
    return waiting


def _hlts(evidence: Evidence) -> int | None:
    """By their exits, as long as the trace goes."""
    if evidence.guest is None or evidence.end.status is not EndStatus.DONE:
        return None
    return sum(" reason hlt " in e.text.lower() for e in evidence.of(Kind.EXIT))


def _halts(evidence: Evidence) -> int:
    """kvm_vcpu_halt ends with kvm_vcpu_wakeup; a vCPU that has halted, or was woken, and did not enter is in it."""
    last: dict[int, Kind] = {}
    ended = 0
    for event in evidence.of(Kind.EXIT, Kind.ENTRY, Kind.WAKEUP):
        if event.kind is not Kind.EXIT or " reason hlt " in event.text.lower():
            last[event.vcpu] = event.kind
        ended += event.kind is Kind.WAKEUP
    return ended + sum(kind is not Kind.ENTRY for kind in last.values())


def _hlts_end(evidence: Evidence) -> bool:
    """No HLT is executed between the end of the trace and the reading of the counters: each vCPU that halts is asleep
    by then, and no timer wakes it.  One whose done list nobody can empty never sleeps: each HLT of it ends at once
    (arch/x86/kvm/x86.c:kvm_vcpu_has_events)."""
    plan = evidence.plan
    if plan.guest.vcpus > 1 and any(item.op is Op.TIMER for item in plan.items):
        return False
    last = {event.vcpu: event for event in evidence.events if event.vcpu >= 0 and event.kind is not _OF_ANY_THREAD}
    halted = {event.vcpu for event in evidence.of(Kind.EXIT) if " reason hlt " in event.text.lower()}
    asleep = all(last[v].kind is Kind.OUT and last[v].value == ord("S") for v in halted)
    return asleep and not any(event.kind is Kind.ENTRY for event in last.values())  # that runs on to its last HLT


def _unlisted(evidence: Evidence) -> tuple[int, ...] | None:
    """Pages of the plan that are on no list when all is over; None: nobody has looked."""
    looked = {
        gpa: page for gpa, page in (evidence.after.pages if evidence.after else {}).items() if page.on_list is not None
    }
    return tuple(sorted(gpa >> 12 for gpa, page in looked.items() if not page.on_list)) if looked else None


def _lost_refaults(evidence: Evidence, kernel: KernelModel) -> tuple[str, ...] | None:
    """Reads from swap for which the cgroup counts no refault.  There may be more refaults than PSWPIN: a read that has
    failed is one, and one of zram (6.1).  None: nobody can tell; of a Linux guest others may read meanwhile."""
    moved = evidence.counters
    told = not kernel.memcg_events_batched and evidence.plan.guest.kind is GuestKind.PROBE
    if not told or not moved.keys() >= {"REFAULT", "PSWPIN"}:
        return None
    read, refaults = moved["PSWPIN"] + moved.get("SWPIN_ZERO", 0), moved["REFAULT"]
    return (f"{read} pages came back from swap, and {refaults} refaults were counted",) if refaults < read else ()


def _of_others(evidence: Evidence) -> tuple[int, ...] | None:
    """Pages of the plan that are charged to another cgroup, or to none, when all is over; None: nobody has looked."""
    pages = evidence.after.pages if evidence.after else {}
    looked = {gpa: page.charged for gpa, page in pages.items() if page.charged is not None}
    return tuple(sorted(gpa >> 12 for gpa, charged in looked.items() if not charged)) if looked else None


def _misflagged(evidence: Evidence) -> tuple[str, ...] | None:
    """Pages of the plan whose folio is not up to date, or is on the lists of the wrong kind; None: nobody has looked.
    What a private file's page is, the page cache's or a copy, nobody knows."""
    memory = evidence.plan.memory
    known = memory.backing is not Backing.FILE or memory.share
    pages = evidence.after.pages if evidence.after else {}
    looked = {gpa >> 12: page for gpa, page in sorted(pages.items()) if page.uptodate is not None}
    wrong = [f"page {gfn:#x} is not up to date" for gfn, page in looked.items() if not page.uptodate]
    for gfn, page in looked.items() if known else ():
        if page.swap_backed != (memory.backing is not Backing.FILE):
            wrong.append(f"page {gfn:#x} is {'' if page.swap_backed else 'not '}backed by swap")
    return tuple(wrong) if looked else None


def _lost_words(evidence: Evidence) -> tuple[str, ...] | None:
    """Pages of the plan in which something else is when they come back from reclaim; None: none was taken."""
    pages = evidence.after.pages if evidence.after else {}
    taken = {gpa >> 12: page for gpa, page in sorted(pages.items()) if page.again is not None}
    lost = [
        f"page {gfn:#x} has {page.word or 0:#x}, and when it was taken and read again {page.again or 0:#x}"
        for gfn, page in taken.items()
        if page.again != page.word
    ]
    return tuple(lost) if taken else None


def _pages_after(evidence: Evidence) -> Mapping[int, PageAfter] | None:
    """Pages of a shared file mapping that were only read: a write fault for them marks the folio dirty at once
    (mm/memory.c:fault_dirty_shared_page).  A page that was freed meanwhile is another folio, clean again, and what was
    in one folio with it is clean, too.  A large folio is dirty for all its pages.  Of anonymous pages see swap_slots.
    """
    plan = evidence.plan
    if plan.memory.backing is not Backing.FILE or not plan.memory.share:
        return None
    written = {i.gpa for i in plan.items if i.op is Op.TOUCH and i.access is Access.WRITE}
    read = {i.gpa for i in plan.items if i.op is Op.TOUCH} - written
    dropped = {p.gpa for p in plan.pages if p.start is PageStart.DROPPED}
    left = evidence.after.pages if evidence.after else {}
    lists = (*plan.host_actions, *(timed.actions for timed in plan.timed))
    freed = {action.arg for actions in lists for action in actions if action.do is HostWord.RECLAIM}
    found = {
        gpa >> 12: PageAfter(page.dirty)
        for gpa in read & dropped - freed - in_one_folio(evidence, freed)
        if (page := left.get(gpa)) is not None and page.dirty is not None and not (page.dirty and page.large)
    }
    return found or None


def _tokens(log: GuestLog, vcpu: int) -> tuple[tuple[int, int], ...]:
    return tuple((e.a, e.b) for e in log.vcpus[vcpu] if e.kind is Record.TOKEN)


_LOOKS = (Record.L2_WORDS, Record.PAGE_FAULT)
"""L1 looks at the flags word, and writes down what it finds: L2_WORDS in a, PAGE_FAULT in b."""


def _left_behind(log: GuestLog, vcpu: int, data: int) -> Iterator[str]:
    """Where L1 found a flags word, without the exits of its L2 that bring a token.

    :param data: what stands there until the host first writes it, as the area lies in a page of the pool; 0: nothing.
    """
    code = -1
    for e in log.vcpus[vcpu]:
        if e.kind in _LOOKS:
            if data and (e.a if e.kind is Record.L2_WORDS else e.b) == data:
                continue
            data = 0
        if e.kind is Record.L2_EXIT:
            code = e.a & 0xFFFFFFFF
        elif e.kind is Record.L2_WORDS and e.a and code != SvmExit.EXCP_PF:
            yield f"item {e.item}: flags {e.a:#x}, token {e.b & 0xFFFFFFFF:#x} at an exit of L2 with code {code:#x}"
        elif e.kind is Record.PAGE_FAULT and e.b:
            yield f"item {e.item}: flags {e.b:#x} at a #PF of the guest's own"


def _events_left(log: GuestLog) -> tuple[str, ...]:
    """Exits of an L2 at which L1 finds in its VMCB what it has injected.  A probe guest of before 2026-11-29 did not
    look, and says that there was nothing."""
    exits = [e for records in log.vcpus for e in records if e.kind is Record.L2_WORDS]
    return tuple(
        f"item {e.item}: EVENTINJ {e.b >> 32:#x} at an exit of L2" for e in exits if e.b >> 32 & _EVENTINJ_VALID
    )


def _readies(log: GuestLog, vcpu: int) -> tuple[int, ...]:
    return tuple(e.a for e in log.vcpus[vcpu] if e.kind is Record.READY)


def _boots(log: GuestLog, vcpu: int) -> Iterator[LoggedStart]:
    tokens = readies = 0
    for e in log.vcpus[vcpu]:
        if e.kind is Record.BOOT:
            yield LoggedStart(tokens, readies)
        tokens += e.kind is Record.TOKEN
        readies += e.kind is Record.READY


def _kvm_stats(counters: Mapping[str, int]) -> Mapping[str, int] | None:
    found = {n.lower(): counters[n] for n in _KVM_STATS if n in counters}
    return found or None
