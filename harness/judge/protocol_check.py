# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole trace against the protocol's rules, and the logs of host and guest against kernel trouble."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from harness.contract.capture import EMULATED
from harness.contract.kernel_trouble import Blame, Trouble
from harness.contract.plan import Op, SwapKind, vcpu_ids
from harness.contract.words import EndStatus
from harness.evidence.decode import DecodedFacts, Evidence
from harness.evidence.delivered_twice import delivered_twice
from harness.evidence.lost_shadow import loads_shadow, lost_shadow
from harness.evidence.lost_wakeup import lost_wakeup
from harness.evidence.trace_events import kinds_of
from harness.judge.cut_off import cut_off, deadline_cuts
from harness.judge.ready_vectors import ready_vectors
from harness.judge.recording import ends_recorded
from harness.judge.refused_reads import device_errors
from harness.judge.rules_context import NOTHING, Expected, context_of, initial, places
from harness.judge.unfinished import unfinished
from harness.judge.verdict_types import Finding, UncheckedRule
from harness.model.events import Event, Kind
from harness.model.kernels import KernelModel
from harness.model.protocol.checker import ALL_KINDS, Checker, Counts, Obligation, Violation
from harness.model.protocol.rules import RULES


@dataclass(frozen=True, slots=True)
class Checked:
    """What the rules say of a capture.  ``hints`` are violations of soft rules: shown, never a FAIL by themselves.

    ``proved``: of ``findings``, those that the events before the emulated processor's own fault show, and nothing that
    came behind it can have caused.  Empty where it had none.
    """

    counts: Counts
    findings: tuple[Finding, ...]
    hints: tuple[Finding, ...]
    unchecked: tuple[UncheckedRule, ...]
    host_trouble: tuple[Trouble, ...]
    proved: tuple[Finding, ...] = ()


def check(evidence: Evidence, kernel: KernelModel, expected: Expected = NOTHING) -> Checked:
    """Feed every event to the protocol checker, then look at the logs."""
    plan = evidence.plan
    facts = evidence.facts
    waiting: frozenset[int] = frozenset()
    if facts is not None:
        ends = ends_recorded(plan, facts.trace_events)
        waiting = unfinished(
            evidence.events, facts.swap_dev, places(evidence), evidence.ended_ns, ends_known=ends,
            manager=evidence.gate if plan.swap.kind is SwapKind.USERFAULT else None,
        )  # fmt: skip
    if deadline_cuts(evidence):
        waiting |= cut_off(evidence.events, places(evidence) or {})
    checker = Checker(
        kernel,
        plan.guest.vcpus,
        initial=initial(plan),
        context=replace(context_of(evidence, kernel, expected), unfinished=len(waiting)),
        vcpu_ids=vcpu_ids(plan.guest),
        recorded=_recorded(evidence.facts),
    )
    found: list[Finding] = []
    emulator = _emulator(evidence)
    proved: tuple[Finding, ...] | None = None
    for event in evidence.events:
        if emulator is not None and proved is None and event.line >= emulator[1]:
            proved = tuple(f for f in found if not f.soft)
        if evidence.lost and event.t_ns >= evidence.complete_until_ns:
            break
        if violations := checker.feed(event):
            found += map(_finding, violations)
    for left in () if evidence.lost else checker.finish():
        if isinstance(left, Obligation) and (left.suspended or _void(left.event, waiting, evidence.ended_ns)):
            continue
        found.append(_finding(left))
    trouble = evidence.host_log.trouble
    if evidence.lost:  # the rule about the logs is one of those that only finish() checks
        found += (Finding("D28", f"the host says: {t.line}") for t in trouble if t.blame is Blame.KERNEL)
        found += (Finding("D28", f"the guest says: {line}") for line in evidence.guest_log.against_the_kernel)
    return Checked(
        counts=checker.total,
        findings=tuple(f for f in found if not f.soft),
        hints=tuple(f for f in found if f.soft),
        unchecked=tuple(UncheckedRule(u.rule, u.reason) for u in checker.unchecked),
        host_trouble=(*trouble, *([emulator[0]] if emulator else []), *_of_the_machine(evidence)),
        proved=proved or (),
    )


def _emulator(evidence: Evidence) -> tuple[Trouble, int] | None:
    """The first thing in the trace that no processor does, but QEMU's emulated one, and its line."""
    facts = evidence.files.get("facts.json", b"")
    if EMULATED.encode() not in facts:
        return None
    trace, plan = evidence.files.get("trace/events.txt", b""), evidence.plan
    touches = [item for item in plan.items if item.op is Op.TOUCH]
    shadowed = {(item.vcpu, item.gpa >> 12) for item in touches if item.shadow}
    found = [delivered_twice(trace, ready_vectors(plan))]
    if loads_shadow(facts):
        return found[0]
    shadowed -= {(i.vcpu, i.gpa >> 12) for i in touches if not i.shadow}
    found.append(lost_shadow(trace, shadowed, vcpu_ids(plan.guest)))
    if evidence.end.status is EndStatus.GUEST_TIMEOUT:
        found.append(lost_wakeup(evidence.recorded()))
    return min((each for each in found if each is not None), key=lambda each: each[1], default=None)


def _of_the_machine(evidence: Evidence) -> Iterator[Trouble]:
    """What a Linux guest says of the machine under it, or of itself, and reads that the pages' device failed."""
    device = evidence.facts.swap_dev if evidence.facts is not None else 0
    for failed in device_errors(evidence.plan, evidence.events, device):
        line = f"trace line {failed.line}: {failed.text}: a read failed that the plan lets succeed"
        yield Trouble("io-error", Blame.MACHINE, line, 0)
    yield from (found for found in evidence.guest_log.trouble if found.blame is not Blame.KERNEL)


def _void(event: Event | None, waiting: Collection[int], ended_ns: int | None) -> bool:
    """What began with the event could not be followed up, or need not: the guest had told its result before."""
    return event is not None and (event.line in waiting or (ended_ns is not None and event.t_ns >= ended_ns))


def _recorded(facts: DecodedFacts | None) -> frozenset[Kind]:
    """What the agent says that it recorded; captures that do not say have everything but, maybe, the probes."""
    if facts is not None and facts.trace_events:
        return kinds_of(facts.trace_events)
    without = frozenset() if facts and facts.has_mm_fault else {Kind.MM_FAULT, Kind.MM_FAULT_RET}
    return ALL_KINDS - without


def _finding(what: Violation | Obligation) -> Finding:
    line = what.event.line if what.event is not None else 0
    soft = not RULES[what.rule].strict
    where = f"vCPU {what.vcpu}: " if what.vcpu >= 0 else ""
    owed = "; still owed at the end of the trace" if isinstance(what, Obligation) else ""
    return Finding(
        what.rule, f"{where}{what.message}{owed}", line=line, soft=soft, consequence=isinstance(what, Obligation)
    )
