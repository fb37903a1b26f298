# SPDX-License-Identifier: GPL-2.0-or-later
"""What nobody accounts for.  Every event of a run belongs to an item, to the protocol, or to the guest's own needs;
what is left over is a finding, not noise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from errno import EAGAIN, EFAULT, EINTR

from harness.contract.plan import PAGE_SIZE, POOL_GPA, By, HostAction, HostWord, Op, Plan, area_page, starts_anew
from harness.contract.probe_abi import VEC_DELIVERED, VEC_HELD_HIGH, VEC_HELD_LOW, VEC_START, VEC_TIMER
from harness.contract.words import Backing, SwapKind
from harness.judge.episodes import Episode
from harness.judge.match import View
from harness.judge.verdict_types import Finding, thread_words
from harness.model.events import MSR_ASYNC_PF_INT, Event, Kind
from harness.model.outcomes import Count, Outcome
from harness.model.simulation.situation import Prediction

_STARTED_BY_A_FAULT = (Kind.TRY, Kind.NP, Kind.REP)
KVM_EXIT_INTR, KVM_EXIT_IRQ_WINDOW_OPEN = 10, 7
_LAPIC_IN_USER_SPACE = frozenset({5, 6, 7, 11})
"""KVM_EXIT_HLT, _MMIO (of its page), _IRQ_WINDOW_OPEN, _SET_TPR: what KVM leaves to a VMM that has the LAPIC
(arch/x86/kvm/x86.c:kvm_emulate_halt, dm_request_for_irq_injection; include/uapi/linux/kvm.h)."""
_ANEW = frozenset({2, EINTR, 6, 8, EAGAIN, 12})
"""KVM_EXIT_IO, _MMIO, _SHUTDOWN and _TPR_ACCESS (include/uapi/linux/kvm.h), and that the vCPU waits for its SIPI
(arch/x86/kvm/x86.c:kvm_arch_vcpu_ioctl_run): of a machine that is reset, and of its firmware."""
INTERRUPTING = frozenset(
    (
        HostWord.STOP,
        HostWord.CONT,
        HostWord.RESET,
        HostWord.SYNC,
        HostWord.NMI,
        HostWord.PLUG,
        HostWord.SAVEVM,
        HostWord.LOADVM,
    )
)
"""They get the vCPU threads out of KVM_RUN by a signal."""


def unexplained(view: View, prediction: Prediction) -> Iterator[Finding]:
    """One finding per event (or fault) that nothing in the plan or the protocol explains."""
    for episode in view.alignment.strangers:
        yield Finding(
            "unexplained",
            f"vCPU {episode.vcpu} faulted on {episode.gpa:#x}, which no item touches at that point",
            line=episode.start.line,
            about="fault",
        )
    top = view.plan.guest.memory_mib << 20
    area = area_page(view.plan) or None  # page 0 is a page of the guest's own
    for episode in view.alignment.own:
        what = view.outcome(episode)
        in_area = episode.gpa & ~0xFFF == area
        if what is Outcome.BLOCK and (_is_written_back(view, episode) or _is_of_firmware(view, episode)):
            continue
        if episode.gpa < top and not in_area and what not in (Outcome.FAST, Outcome.MINOR):
            yield Finding(
                "unexplained",
                f"the guest's own page {episode.gpa:#x} was missing ({what}), although it was proved present",
                line=episode.start.line,
                about="own page",
            )
    yield from _events(view, prediction)


def _is_of_firmware(view: View, episode: Episode) -> bool:
    """Whether a vCPU that boots again takes a page that nobody has touched, of memory where a userfaultfd has each such
    page wait.  SeaBIOS gives its threads their stacks from high memory, and how many there are at once depends on how
    long devices take (src/stacks.c:run_thread): the first boot may have needed fewer."""
    plan, page = view.plan, episode.gpa // PAGE_SIZE
    if plan.swap.kind is not SwapKind.USERFAULT or plan.guest.machine == "microvm" or episode.gpa < POOL_GPA:
        return False  # of what lies in the pool and is in no plan only a boot's is the guest's own (align)
    return not any(e.gpa // PAGE_SIZE == page and e.start.t_ns < episode.start.t_ns for e in view.alignment.own)


def _is_written_back(view: View, episode: Episode) -> bool:
    """Whether a write waited for the writeback of its page, which has cleaned its PTE before (mm/rmap.c:
    page_mkclean_one ends in an mmu notifier).  The flusher holds the page's lock until it has added the page to a bio,
    and the file system's page_mkwrite takes that lock and calls folio_wait_stable.  Only of a file that guest RAM
    shares; a writeback that was over when the write came is not the one that it waited for."""
    call = episode.first(Kind.MM_FAULT)
    memory = view.plan.memory
    if call is None or not episode.write or memory.backing is not Backing.FILE or not memory.share:
        return False
    if episode.own_reads(view.dev):
        return False
    page, began = call.hva & -PAGE_SIZE, call.t_ns
    notifiers = (e for e in view.events if e.kind is Kind.UNMAP and e.vcpu < 0 and e.hva <= page < e.data)
    cleaned = [e for e in notifiers if e.t_ns <= episode.start.t_ns]
    return bool(cleaned) and not _is_written(view, cleaned[-1], began)


def _is_written(view: View, cleaned: Event, before_ns: int) -> bool:
    """Whether the write that the cleaning thread submitted first behind this notifier had ended by then."""
    writes = [e for e in view.events if e.kind in (Kind.BIO, Kind.BIO_END) and not e.flag and e.dev == view.dev]
    behind = (e for e in writes if e.kind is Kind.BIO and e.tid == cleaned.tid and e.t_ns > cleaned.t_ns)
    bio = next(behind, None)
    if bio is None:  # it was not cleaned to be written: a copy, or another notifier
        return True
    return any(
        e.kind is Kind.BIO_END
        and bio.t_ns <= e.t_ns < before_ns
        and e.value < bio.value + bio.data
        and bio.value < e.value + e.data
        for e in writes
    )


def _events(view: View, prediction: Prediction) -> Iterator[Finding]:
    vectors = _vectors(view.plan)
    gps = prediction.totals.get("GP", Count.exactly(0)).high
    others = prediction.totals.get("BIO_OTHER", Count.exactly(0)).high
    ways = _ways_anew(view.plan)
    kicked: dict[int, int] = {}  # by vCPU: the last of view.kicks that it has left KVM_RUN behind
    no_vector = _no_vector(view.plan)
    stopped = False
    inside = {
        id(e) for episode in (*view.alignment.own, *view.alignment.strangers, *_of_items(view)) for e in episode.events
    }
    for e in view.events:
        text = ""
        if e.kind in _STARTED_BY_A_FAULT and id(e) not in inside:
            text = "belongs to no fault of its thread"
        elif e.kind is Kind.ACC and e.value not in vectors and not (no_vector and no_vector.search(e.text)):
            text = f"vector {e.value:#x} is neither async page fault nor timer"
        elif e.kind is Kind.INJ_OTHER and not e.flag:
            if "#GP" in e.text and gps > 0:
                gps -= 1
            else:
                text = "an exception that the plan does not provoke"
        elif e.kind is Kind.INJ and e.value != 0 and not e.flag:
            text = "a page fault with an error code is not asynchronous"
        elif (
            e.kind is Kind.USER_EXIT
            and e.value not in ways
            and not (e.value == EINTR and (stopped or _kicked(view, e, kicked)))
        ):
            if not _legal_exit(e, view.plan, prediction):
                text = "an exit to userspace while the guest's program ran"
            elif e.value == EFAULT:  # KVM_RUN has failed: the VMM stops the VM, and kicks every other vCPU out of KVM
                stopped = True
        elif e.kind is Kind.BIO and e.flag and e.dev == view.dev and e.vcpu < 0 and not e.worker:
            others -= 1
            if others < 0:
                text = f"thread {e.tid} reads from the pages' device, but is neither vCPU nor kworker"
        if text:
            yield Finding("unexplained", f"{e.text} ({thread_words(e.vcpu, e.worker, e.tid)}): {text}", line=e.line,
                          about=e.kind.name)  # fmt: skip


def _ways_anew(plan: Plan) -> frozenset[int]:
    """Why a vCPU may leave KVM_RUN while the machine is reset, or boots again.  With a split irqchip the VMM has the
    PIC that serves a PC's firmware: KVM leaves to it when the vCPU can be given an interrupt
    (arch/x86/kvm/x86.c:dm_request_for_irq_injection)."""
    if not starts_anew(plan):
        return frozenset()
    served = plan.guest.irqchip == "split" and plan.guest.machine != "microvm"
    return _ANEW | ({KVM_EXIT_IRQ_WINDOW_OPEN} if served else set())


def _kicked(view: View, e: Event, seen: dict[int, int]) -> bool:
    """Whether the agent had the VMM send the thread a signal: during what the agent did, or once behind it, when the
    thread had not run since."""
    over = [n for n, (_, end_ns) in enumerate(view.kicks) if end_ns < e.t_ns]
    last = max(over, default=-1)
    first, seen[e.vcpu] = last > seen.get(e.vcpu, -1), max(last, seen.get(e.vcpu, -1))
    return first or any(start_ns <= e.t_ns <= end_ns for start_ns, end_ns in view.kicks)


def _of_items(view: View) -> Iterator[Episode]:
    for item in view.alignment.items:
        yield from item.episodes


def _legal_exit(e: Event, plan: Plan, prediction: Prediction) -> bool:
    guest = plan.guest
    # A PC's PIT goes on as its firmware has left it: QEMU's LAPIC tells the thread of each interrupt by a signal
    # (pic_irq_request, apic_deliver_pic_intr, qemu_cpu_kick).
    reasons = _LAPIC_IN_USER_SPACE | (set() if guest.machine == "microvm" else {EINTR})
    lapic = guest.irqchip == "off" and e.value in reasons
    return e.value == KVM_EXIT_INTR or lapic or (prediction.may_fail and e.value == EFAULT)


def _no_vector(plan: Plan) -> re.Pattern[str] | None:
    """What a LAPIC accepts that is no vector (arch/x86/kvm/trace.h:kvm_deliver_mode), if the program sends such: one
    vCPU starts another, after a reset or by the op init, or sends itself an NMI."""
    modes: tuple[str, ...] = ("INIT", "SIPI") if plan.guest.vcpus > 1 and starts_anew(plan) else ()
    if any(i.by is By.NMI for i in plan.items):
        modes += ("NMI",)
    return re.compile(rf"\(({'|'.join(modes)})\|") if modes else None


def _vectors(plan: Plan) -> frozenset[int]:
    written = {i.value for i in plan.items if i.op is Op.WRMSR and i.msr == MSR_ASYNC_PF_INT}
    timer = {VEC_TIMER} if any(i.op is Op.TIMER for i in plan.items) else set()
    start = {VEC_START} if plan.guest.vcpus > 1 else set()
    sent = {VEC_DELIVERED} if any(i.by is By.INTERRUPT for i in plan.items) else set()
    held = {VEC_HELD_LOW if i.interrupts else VEC_HELD_HIGH for i in plan.items if i.in_service}
    return frozenset({plan.guest.apf.vector} | written | timer | start | sent | held)


def _actions(plan: Plan) -> Iterator[HostAction]:
    for group in plan.host_actions:
        yield from group
    for timed in plan.timed:
        yield from timed.actions
