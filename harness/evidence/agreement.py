# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of one capture against each other: what was written about the same thing in two places must agree.

For runs whose program came to its end.  Each function yields contradictions in words, nothing where there is none.
A contradiction is damage, never a finding about the kernel: no kernel writes these files.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from harness.contract.capture import AgentStep, FinalState, Precondition, RunEnd
from harness.contract.plan import PAGE_SIZE, SHARED_GPA, HostWord, Op, Plan, further_areas, says, vcpu_ids
from harness.contract.probe_abi import MASK64, Record
from harness.contract.program import decode_items
from harness.evidence.agent_steps import ProgressStep
from harness.evidence.guestlog import GuestLog, GuestRecord
from harness.model.events import MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, Event, Kind

_SLACK_S = 0.1
"""How far two stamps of one moment may lie apart: they are taken one after the other by a program that can be held."""
_ONCE = (
    AgentStep.PREPARE_HOST, AgentStep.GO, AgentStep.GUEST_ENDED, AgentStep.COLLECT, AgentStep.UNDO, AgentStep.END,
)  # fmt: skip
_OFTEN = (AgentStep.HOST_ACTION, AgentStep.HOST_ACTION_DONE)
_VCPU_ONLY = frozenset({Kind.ENTRY, Kind.EXIT, Kind.PF, Kind.TRY, Kind.NP, Kind.REP})
"""What only a thread in KVM_RUN traces."""
_SLOTS = 1 << 50
"""The offset in a swap entry has fewer bits, and at 0 lies the header of the area (mm/swapfile.c)."""
_FAULT_FLAG_INTERRUPTIBLE = 1 << 9
"""include/linux/mm_types.h (5.10 to 7.3)"""
_INTERRUPTIBLE = ord("S")
_SLEEP = frozenset({_INTERRUPTIBLE, ord("D")})
_IDLE = "_comm=swapper/"
_IN_AND_OUT = frozenset({Kind.USER_EXIT, Kind.ENTRY, Kind.MM_FAULT, Kind.MM_FAULT_RET})
"""Of KVM_RUN, and of handle_mm_fault."""
_SET_UP = (MSR_ASYNC_PF_INT, MSR_ASYNC_PF_EN)


def program_problems(plan: Plan, data: bytes) -> Iterator[str]:
    """guest/items.bin, which the guest ran, against the plan. :raise CaptureDamaged: it is no items file."""
    program = decode_items(data)
    for what, ran, planned in (
        ("nonce", program.nonce, plan.nonce),
        ("number of vCPUs", program.vcpus, plan.guest.vcpus),
        ("APIC ids", program.apic_ids, vcpu_ids(plan.guest)),
        ("idle loop", program.idle, plan.guest.idle),
        ("set-up of async page faults", program.apf, plan.guest.apf),
        ("way with NMIs", program.nmis, says(plan, HostWord.NMI)),
        ("number of items", len(program.items), len(plan.items)),
    ):
        if ran != planned:
            yield f"guest/items.bin: the guest ran another {what} than the plan's: {ran} instead of {planned}"
    for ran_item, item in zip(program.items, plan.items, strict=False):
        if ran_item != dataclasses.replace(item, page="", value=item.value & MASK64):
            yield f"guest/items.bin: item {item.index} is not the plan's"


def progress_problems(steps: Sequence[ProgressStep], end: RunEnd, log: GuestLog | None, plan: Plan) -> Iterator[str]:
    """The agent's steps among themselves, and against end.json, the guest's log and the plan."""
    for old, new in pairwise(steps):
        if new.t < old.t or new.mono < old.mono:
            yield f"progress.jsonl: {new.step} is before {old.step}"
    bases = [s.mono - s.t for s in steps]
    if bases and max(bases) - min(bases) > _SLACK_S:
        yield "progress.jsonl: its two clocks do not run alike"
    order = [s.step for s in steps if s.step in _ONCE]
    if tuple(order) != _ONCE:
        yield f"progress.jsonl: its steps are {', '.join(order) or 'none'}, not {', '.join(_ONCE)}"
    for name, count in Counter(s.step for s in steps if s.step not in _OFTEN).items():
        if count > 1 and name not in _ONCE:
            yield f"progress.jsonl: {name} stands there {count} times"
    begun, done = (Counter(s.action for s in steps if s.step is step) for step in _OFTEN)
    for action in done - begun:
        yield f"progress.jsonl: {action.do if action else None} ended more often than it began"
    for step in steps:
        if step.step in (AgentStep.GUEST_ENDED, AgentStep.END) and step.status != end.status:
            yield f"progress.jsonl: {step.step} with status {step.status!r}, end.json says {end.status}"
        if log is not None and step.tsc_khz not in (None, log.tsc_khz):
            yield f"progress.jsonl: a TSC of {step.tsc_khz} kHz, guest/log.bin says {log.tsc_khz}"
    if log is not None:
        yield from _actions(steps, log, plan)


def _actions(steps: Sequence[ProgressStep], log: GuestLog, plan: Plan) -> Iterator[str]:
    """The host actions that were performed are those of the stages that the guest came to, and timed ones."""
    performed = Counter(
        (s.action.do, s.action.arg) for s in steps if s.action is not None and s.step is AgentStep.HOST_ACTION
    )
    due: Counter[tuple[HostWord, int]] = Counter()
    for record in log.all():
        if record.kind is Record.STAGE and record.b == 1 and 0 <= record.a < len(plan.host_actions):
            due.update((a.do, a.arg) for a in plan.host_actions[record.a])
    timed = Counter((a.do, a.arg) for t in plan.timed for a in t.actions)
    for (do, arg), count in (due - performed).items():
        yield f"progress.jsonl: {do} {arg} was due {count} times more than it was performed"
    for (do, arg), count in (performed - due - timed).items():
        yield f"progress.jsonl: {do} {arg} was performed {count} times more than the guest asked for it"


def clock_problems(steps: Sequence[ProgressStep], events: Sequence[Event], *, probe: bool) -> Iterator[str]:
    """The trace lies where the agent recorded it, and something of it while the guest's program ran.

    A probe guest is traced from the precondition on, a Linux guest from some time after the host was prepared.
    """
    at = {s.step: s.mono for s in steps}
    if not events or not {AgentStep.PREPARE_HOST, AgentStep.GO, AgentStep.GUEST_ENDED, AgentStep.COLLECT} <= set(at):
        return
    begin = at.get(AgentStep.PRECONDITION, at[AgentStep.GO]) if probe else at[AgentStep.PREPARE_HOST]
    times = [e.t_ns for e in events]
    first, last = min(times) / 1e9, max(times) / 1e9
    end = at.get(
        AgentStep.UNDO, at[AgentStep.COLLECT]
    )  # on a busy machine the recording ends well after its step began
    if first < begin - _SLACK_S or last > end + _SLACK_S:
        yield (
            f"the trace is of {first:.3f} to {last:.3f} s, progress.jsonl says that it was recorded between"
            f" {begin:.3f} and {end:.3f} s"
        )
    elif last < at[AgentStep.GO] or first > at[AgentStep.GUEST_ENDED] + _SLACK_S:
        yield "nothing in the trace is of the time in which the guest's program ran"


def thread_problems(events: Sequence[Event], *, probe: bool) -> Iterator[str]:
    """KVM_RUN is traced for QEMU's vCPU threads, and for each vCPU.

    The boot CPU of a probe guest has to be let go; that of a Linux guest may sleep in HLT throughout: the workload is
    another's.
    """
    for event in events:
        if event.kind in _VCPU_ONLY and event.vcpu < 0:
            yield f"trace/events.txt:{event.line}: thread {event.tid} runs a vCPU, facts.json names it not: another run"
            return
    if events and not any(e.kind is Kind.ENTRY and (e.vcpu == 0 or not probe) for e in events):
        yield "vCPU 0 was never entered in the trace" if probe else "no vCPU was entered in the trace"


def wake_problems(events: Sequence[Event], later: Collection[int] = (), signalled: int | None = None) -> Iterator[str]:
    """A thread that has slept and runs again was woken behind what it did before it slept
    (kernel/sched/core.c:try_to_wake_up traces sched_waking; it may be before the sched_switch of who is to sleep), and
    who is woken is not woken again before it runs.

    Whose signal is pending when it goes to sleep interruptibly stays runnable, and is traced as one that sleeps all the
    same (kernel/sched/core.c:__schedule, signal_pending_state).  QEMU sends its vCPU threads signals, and outside of
    KVM_RUN they sleep for its locks: there nobody knows until the processor that such a thread left was idle.  Nor in
    an interruptible call of handle_mm_fault, which a signal has end, and be made again (fs/userfaultfd.c:
    handle_userfault); nor anywhere in KVM_RUN from ``signalled`` on: who goes to sleep there with a signal pending is
    the kernel's fault, and no damage.

    :param later: threads of vCPUs that were plugged in: sched_waking of each is recorded from some time after its begin
        on, and a sched_switch before where another vCPU's thread gets its CPU.
    """
    asleep: set[int] = set()
    off: dict[int, bool] = {}  # by thread that is on no CPU: whether it was woken since
    did: dict[int, int] = {}  # by thread: line of what it did last
    woken: dict[int, int] = {}
    runnable: dict[int, int] = {}  # by thread that perhaps is: the processor that it left
    outside: set[int] = set()  # of KVM_RUN
    interruptible: set[int] = set()  # in such a call of handle_mm_fault
    out, in_, waking, acc = Kind.OUT, Kind.IN, Kind.WAKING, Kind.ACC  # a member of an enum takes its time to look up
    for event in events:
        kind, tid = event.kind, event.tid
        if kind is waking:
            if off.get(event.data):
                yield f"trace/events.txt:{event.line}: thread {event.data} is woken twice, and has not run in between"
            woken[event.data] = event.line
            if event.data in off:
                off[event.data] = True
            continue
        if (kind is out or kind is in_) and _IDLE in event.text:
            runnable = {tid: cpu for tid, cpu in runnable.items() if cpu != event.cpu}
        if kind is out:
            off[tid] = False
            pending = tid in outside or tid in interruptible or (signalled is not None and event.t_ns >= signalled)
            if pending and event.value == _INTERRUPTIBLE and _IDLE not in event.text:
                runnable[tid] = event.cpu
            if event.value in _SLEEP:
                asleep.add(tid)
            continue
        if kind is in_:
            if tid in asleep and (tid not in later or tid in woken):
                if woken.get(tid, 0) <= did.get(tid, 0) and tid not in runnable:
                    yield f"trace/events.txt:{event.line}: thread {tid} slept and runs again, and nobody has woken it"
                asleep.discard(tid)
            off.pop(tid, None)
            runnable.pop(tid, None)
        if event.line and kind is not acc:
            did[tid] = event.line
        if kind in _IN_AND_OUT:
            if kind is Kind.USER_EXIT:
                outside.add(tid)
            elif kind is Kind.ENTRY:
                outside.discard(tid)
            elif kind is Kind.MM_FAULT_RET:
                interruptible.discard(tid)
            elif event.value & _FAULT_FLAG_INTERRUPTIBLE:
                interruptible.add(tid)


def register_problems(plan: Plan, log: GuestLog, events: Sequence[Event]) -> Iterator[str]:
    """What the guest wrote to EN and INT, and read back, is what the trace shows, in the order of each vCPU.

    For a guest that was not reset.  A kernel cannot change what is written; what it gives back is in the trace.
    """
    for vcpu, records in enumerate(log.vcpus):
        mine = [e for e in events if e.vcpu == vcpu and e.value in _SET_UP]
        wrote = [(e.value, e.data) for e in mine if e.kind is Kind.WRMSR]
        planned = [(msr, value) for msr, value, _ in _writes(plan, vcpu, records)]
        if wrote != planned:
            yield f"vCPU {vcpu}: the trace has {len(wrote)} writes of EN and INT, and not those {len(planned)} due"
        read = [(e.value, e.data) for e in mine if e.kind is Kind.RDMSR and not e.flag]
        told = [(r.a, r.b) for r in records if r.kind is Record.MSR and r.a in _SET_UP]
        if read != told:
            yield f"vCPU {vcpu}: guest/log.bin says that it read back other values than the trace"


def times_of_writes(plan: Plan, log: GuestLog, events: Sequence[Event]) -> dict[int, int]:
    """Item that writes EN or INT -> when it did (trace clock, ns); of vCPUs whose trace has just the writes due.

    :param events: all of kind WRMSR.
    """
    found: dict[int, int] = {}
    for vcpu, records in enumerate(log.vcpus):
        mine = [e for e in events if e.vcpu == vcpu and e.value in _SET_UP]
        due = _writes(plan, vcpu, records)
        if [(e.value, e.data) for e in mine] == [(msr, value) for msr, value, _ in due]:
            found |= {item: e.t_ns for e, (_, _, item) in zip(mine, due, strict=True) if item >= 0}
    return found


def _writes(plan: Plan, vcpu: int, records: Sequence[GuestRecord]) -> list[tuple[int, int, int]]:
    """(MSR, value, item; -1 for those of the set-up), in order, of a vCPU that was not reset."""
    found = [(msr, value, -1) for msr, value in _set_up(plan, vcpu)]
    for record in records:
        item = plan.items[record.item] if 0 <= record.item < len(plan.items) else None
        if record.kind is Record.START and item is not None and item.op is Op.WRMSR and item.msr in _SET_UP:
            found.append((item.msr, item.value & MASK64, item.index))
    return found


def _set_up(plan: Plan, vcpu: int) -> Iterator[tuple[int, int]]:
    """guest-images/probe/ops.c:apf_setup."""
    apf = plan.guest.apf
    if apf.vector:
        yield MSR_ASYNC_PF_INT, apf.vector
    if apf.en_flags:
        area = SHARED_GPA + PAGE_SIZE * vcpu if apf.en_gpa == -1 else apf.en_gpa
        yield MSR_ASYNC_PF_EN, (area | apf.en_flags) & MASK64


def precondition_problems(seen: Precondition, plan: Plan) -> Iterator[str]:
    """The totals against the pages that they are totals of, and these against the plan's."""
    names = {page.gpa: page.name for page in plan.pages}
    pages = seen.pages
    for name, count in (
        ("pages", len(pages)),
        ("present", sum(p.present for p in pages.values())),
        ("swapped", sum(p.swapped for p in pages.values())),
    ):
        if seen.totals.get(name) != count:
            yield f"precondition.json: its totals say {seen.totals.get(name)} for {name}, its pages {count}"
    for gpa, page in pages.items():
        if page.swapped and (page.swap_offset is None or page.swap_type is None):
            yield f"precondition.json: the page {page.gpa:#x} is swapped, but it is not said where to"
        if page.swap_offset is not None and not 0 < page.swap_offset < _SLOTS:
            yield f"precondition.json: the page {page.gpa:#x} has the swap slot {page.swap_offset}, where no page lies"
        if page.name != names.get(gpa, page.name):
            yield f"precondition.json: the page {page.gpa:#x} is called {page.name!r}, not {names[gpa]!r}"
        if page.gpa != gpa:
            yield f"precondition.json: the page {page.gpa:#x} stands at {gpa:#x}"


def left_problems(plan: Plan, after: FinalState | None, *, old: bool) -> Iterator[str]:
    """after.json: what the agent looks at after a probe guest: since format 2, with the words of the shared areas."""
    if after is None:
        yield "after.json is missing from the capture"
        return
    vcpus, pages = set(range(plan.guest.vcpus)), {page.gpa for page in plan.pages}
    areas = set(further_areas(plan))
    unread = {page.gpa for page in plan.pages if page.name in plan.swap.error}
    if after.areas is not None:  # a page whose read fails has no words to be told
        areas -= {gpa for gpa in areas - set(after.areas) if gpa & -PAGE_SIZE in unread}
    for name, there, due in (
        ("shared_tail_zero", set(after.shared_tail_zero), vcpus),
        ("shared_flags", set(after.shared_flags), set() if old else vcpus),
        ("shared_token", set(after.shared_token), set() if old else vcpus),
        ("areas", areas if after.areas is None else set(after.areas), areas),
        ("pages", set(after.pages), pages),
    ):
        if there != due:
            yield f"after.json: {name} is of {len(there)}, not of the plan's {len(due)}"
    names = {page.gpa: page.name for page in plan.pages}
    for gpa, page in after.pages.items():
        if page.name != names.get(gpa, page.name):
            yield f"after.json: the page {gpa:#x} is called {page.name!r}, not {names[gpa]!r}"
    seen = [(page.dirty is None, page.swap_cache is None) for page in after.pages.values() if page.present]
    if len({known for pair in seen for known in pair}) > 1:
        yield "after.json: the flags of some pages in the page table are there, of others not"
