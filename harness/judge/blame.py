# SPDX-License-Identifier: GPL-2.0-or-later
"""Which finding is the cause and which follow from it: how a guest ended, and the order in which findings are told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import IntEnum

from harness.contract.plan import GuestKind
from harness.contract.probe_abi import LOG_FULL, LOG_RECORDS, Record
from harness.contract.words import EndStatus
from harness.evidence.decode import Evidence
from harness.evidence.guestlog import GuestRecord
from harness.judge.verdict_types import OFFERED, Finding, TimelineRow
from harness.model.events import WAKE_ALL_TOKEN, Event, Kind
from harness.model.known_faults import KNOWN_FAULTS
from harness.model.simulation.situation import Prediction

PAGE_FAULT = 14
_OF_A_RUN = frozenset({Kind.ENTRY, Kind.EXIT, Kind.OUT, Kind.IN, Kind.NP, Kind.REP, Kind.USER_EXIT, Kind.PF})


class Rank(IntEnum):
    """What is told first."""

    CAUSE = 0  # the kernel's own cry, the guest's panic, a vCPU that never ran again, what the guest is not offered
    SHOWN = 1  # a line of the trace shows it
    UNSHOWN = 2
    CONSEQUENCE = 3  # something was still owed, or had not ended, when all was over
    COUNT = 4  # a number that follows from all the others


def rank(finding: Finding) -> Rank:
    """Where a finding stands."""
    if finding.rule == "total":
        return Rank.COUNT
    if finding.consequence:
        return Rank.CONSEQUENCE
    if finding.rule in ("D28", "panic", "stopped") or finding.name == OFFERED:
        return Rank.CAUSE
    return Rank.SHOWN if finding.line else Rank.UNSHOWN


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Causes before their consequences, then as the trace shows them."""
    return tuple(sorted(findings, key=lambda f: (rank(f), f.line)))


def first_words(findings: Sequence[Finding]) -> str:
    """The first divergence, and which other rules were broken."""
    head = findings[0]
    others = sorted({f.rule for f in findings[1:]} - {head.rule})
    named = f": {', '.join(others)}" if others else ""
    more = f" (and {len(findings) - 1} more{named})" if len(findings) > 1 else ""
    return f"{head.rule}: {head.message}{more}"


def timeline(evidence: Evidence, findings: tuple[Finding, ...], around: int = 14) -> tuple[TimelineRow, ...]:
    """The trace around the first divergence, the line itself marked."""
    at = next((f.line for f in findings if f.line), 0)
    if not at:
        return ()
    near = [e for e in evidence.recorded() if at - 400 <= e.line <= at + 400]
    index = min(range(len(near)), key=lambda i: abs(near[i].line - at))
    shown = near[max(0, index - around) : index + around]
    return tuple(TimelineRow(e.t_ns, e.vcpu, e.worker, e.tid, e.text, e.line == at) for e in shown)


def titles(prediction: Prediction) -> str:
    """The known faults that are predicted to show."""
    return "; ".join(f"{name}: {KNOWN_FAULTS[name].title}" for name in prediction.known_faults)


MAX_ALIKE = 100
"""So many findings of one kind are listed: a vCPU that spins breaks the same rule some hundred thousand times."""


def bounded(findings: Sequence[Finding]) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """The first findings of each kind, in their order, and how many of which kind are not listed."""
    seen: Counter[str] = Counter()
    listed: list[Finding] = []
    for finding in findings:
        seen[finding.rule] += 1
        if seen[finding.rule] <= MAX_ALIKE:
            listed.append(finding)
    left_out = tuple(f"{rule}: {n - MAX_ALIKE} findings more" for rule, n in seen.items() if n > MAX_ALIKE)
    return tuple(listed), left_out


_NO_START = "PANIC: a vCPU does not start"  # said by the probe guest of captures before 2026-12, 30 s behind a SIPI

END_WORDS = {
    EndStatus.GUEST_TIMEOUT: "the guest's program did not end within its deadline",
    EndStatus.GUEST_PANIC: "the guest met an exception that it cannot explain",
    EndStatus.QEMU_DIED: "QEMU ended before the guest did",
}


def ending(evidence: Evidence, prediction: Prediction) -> Iterator[Finding]:
    """How the run ended, where it was not to end so, with what is known of the reason."""
    status = evidence.end.status
    if status is EndStatus.DONE:
        if not prediction.ends and not prediction.undecided_end:
            yield Finding("item", "the program was predicted never to end, but it did", about="end")
        return
    linux = evidence.plan.guest.kind is GuestKind.LINUX
    stays = not prediction.ends or prediction.undecided_end
    if stays and linux and status is EndStatus.GUEST_PANIC:
        return  # whether it was to panic, and with which words, is D28's
    if stays and prediction.known_faults and _NO_START in evidence.text("guest/console.txt"):
        return  # the boot CPU has waited for the vCPU that never runs again
    yield from panics(evidence)
    if stays and status is EndStatus.GUEST_TIMEOUT:
        if not evidence.lost:  # the model may have followed a guest that is not let run
            known = bool(prediction.known_faults)
            yield from stopped(evidence.events, evidence.plan.guest.vcpus, owed=False, wedged=known)
        return
    if status is EndStatus.GUEST_TIMEOUT and not evidence.lost:
        yield from stopped(evidence.events, evidence.plan.guest.vcpus)
    words = f"{END_WORDS.get(status, status)}: {evidence.end.reason}".rstrip(": ")
    last = _shutdown(evidence.events) if status is EndStatus.QEMU_DIED else None
    if last is not None:
        yield Finding("ending", f"{last.text}: {words}", line=last.line, about=status)
    else:
        yield Finding("ending", words, consequence=True, about=status)


def log_is_full(evidence: Evidence, prediction: Prediction) -> bool:
    """The run was over because a vCPU's log had no room for more: the probe guest did what it was told, and too much
    came, such as ticks on a machine that is slower than they are.

    The agent ends such a run while there is room, which is how one has to end that goes on for ever.
    """
    if evidence.guest is None:
        return False
    most = max(map(len, evidence.guest.vcpus), default=0)
    if evidence.end.status is EndStatus.GUEST_PANIC:
        return most >= LOG_RECORDS
    ends = prediction.ends and not prediction.undecided_end
    return ends and evidence.end.status is EndStatus.GUEST_TIMEOUT and most >= LOG_FULL


_SHUTDOWN = re.compile(r"reason shutdown rip (0x[0-9a-f]+).* intr_info (0x[0-9a-f]+)")
_INTR_INFO_VALID, _VECTOR = 1 << 31, 0xFF


def _shutdown(events: Iterable[Event]) -> Event | None:
    """The last exit with which a vCPU told KVM that its guest shut down (APM volume 2, 15.14.3: a fault came while a
    double fault was delivered), its text in words.  KVM_EXIT_SHUTDOWN makes QEMU reset the machine, or end."""
    exits = [e for e in events if e.kind is Kind.EXIT and _SHUTDOWN.search(e.text)]
    if not exits:
        return None
    last = exits[-1]  # a machine that is reset may have shut down before
    found = _SHUTDOWN.search(last.text)
    assert found is not None
    info = int(found[2], 16)
    why = f"vector {info & _VECTOR:#x} could not be delivered" if info & _INTR_INFO_VALID else "a triple fault"
    return replace(last, text=f"vCPU {last.vcpu} shut down at rip {found[1]}, {why}")


def panics(evidence: Evidence) -> Iterator[Finding]:
    """What the probe guest says of its last trap.

    A #PF whose CR2 is a token that the host injected is a token whose flags word was not written, or cleared before it
    was read (arch/x86/kvm/x86.c:apf_put_user_notpresent).
    """
    for vcpu, records in enumerate(evidence.guest.vcpus if evidence.guest else ()):
        for at, record in enumerate(records):
            if record.kind is not Record.FAULT:
                continue
            cr2 = _cr2(records, at)
            vector, error = record.a & 0xFFFFFFFF, record.a >> 32
            flags = evidence.after.shared_flags.get(vcpu) if evidence.after else None
            said = (
                f"the guest met vector {vector}, error code {error:#x}, at {record.b:#x}"
                f" with CR2 {'unknown' if cr2 is None else hex(cr2)};"
                f" the flags word of its shared area {'was not read' if flags is None else f'is {flags:#x}'}"
            )
            token = _injected(evidence.events, vcpu, cr2) if vector == PAGE_FAULT else None
            if token is None:
                yield Finding("panic", f"vCPU {vcpu}: {said}", item=record.item)
            else:
                why = f"that is token {token.token:#x}, and nothing told the guest that it is one"
                yield Finding("D39", f"vCPU {vcpu}: {said}: {why}", item=record.item, line=token.line)


def _cr2(records: tuple[GuestRecord, ...], at: int) -> int | None:
    return next((r.a for r in records[at + 1 : at + 2] if r.kind is Record.CR2), None)


def _injected(events: Iterable[Event], vcpu: int, cr2: int | None) -> Event | None:
    """The NP of this vCPU whose token that is, None without."""
    return next((e for e in events if e.kind is Kind.NP and e.vcpu == vcpu and e.token == cr2), None)


def stopped(events: Iterable[Event], vcpus: int, *, owed: bool = True, wedged: bool = False) -> Iterator[Finding]:
    """vCPUs whose threads slept in the host at the end although the guest had not executed HLT.

    One that sleeps in HLT waits for what the host owes it: that is told by whoever owes it.

    :param owed: also those that wait for a page (an async page fault outstanding, or in state D), or for their VMM.
    :param wedged: a vCPU that was reset is known never to run again.
    """
    last: dict[int, Event] = {}
    exit_: dict[int, Event] = {}
    waits: Counter[int] = Counter()
    at_vmm: set[int] = set()
    cleared: set[int] = set()
    for e in events:
        kind = e.kind
        if kind is Kind.ENTRY or kind is Kind.EXIT:
            cleared.discard(e.vcpu)
            at_vmm.discard(e.vcpu)
        elif kind is Kind.NP:
            waits[e.vcpu] += 1
        elif kind is Kind.RDY:
            waits[e.vcpu] -= e.token != WAKE_ALL_TOKEN
        elif kind is Kind.USER_EXIT and e.vcpu not in cleared:
            at_vmm.add(e.vcpu)
        elif kind is Kind.CLEAR and not wedged:
            # Nothing is owed for what was cleared; the VMM that has reset a vCPU lets it run.
            waits[e.vcpu] = 0
            cleared.add(e.vcpu)
            at_vmm.discard(e.vcpu)
        if e.vcpu >= 0 and kind in _OF_A_RUN:
            last[e.vcpu] = e
            if kind is Kind.EXIT:
                exit_[e.vcpu] = e
    for vcpu in range(vcpus):
        final, left = last.get(vcpu), exit_.get(vcpu)
        asleep = final is not None and final.kind is Kind.OUT and chr(final.value) != "R"
        if not asleep or left is None or " reason hlt " in left.text.lower():
            continue
        if not owed and final is not None and (waits[vcpu] > 0 or vcpu in at_vmm or chr(final.value) == "D"):
            continue
        assert final is not None
        yield Finding(
            "stopped",
            f"vCPU {vcpu} never ran again: it left the guest ({left.text}) and slept until the end",
            line=final.line,
        )


def with_full_logs(evidence: Evidence) -> frozenset[int]:
    """vCPUs whose guests wrote so much that the agent ended the run: they were at it until then."""
    logs = evidence.guest.vcpus if evidence.guest is not None else ()
    return frozenset(vcpu for vcpu, records in enumerate(logs) if len(records) >= LOG_FULL)


def neither_sleeps_nor_enters(
    events: Iterable[Event], vcpus: int, *, to_the_end: Container[int] = ()
) -> Iterator[Finding]:
    """vCPUs whose last page fault ended in an artificial halt, of a run in which all waited for ever: each has to sleep
    as in HLT (arch/x86/kvm/x86.c:kvm_vcpu_block, TASK_INTERRUPTIBLE), or to have entered the guest again.

    :param to_the_end: vCPUs that ran until the recording ended, which may be anywhere then.
    """
    last: dict[int, Event] = {}
    halts: dict[int, Event] = {}
    for e in events:
        if e.kind in (Kind.NP, Kind.REP):
            halts[e.vcpu] = e
        elif e.kind in (Kind.ENTRY, Kind.INJ, Kind.CLEAR, Kind.USER_EXIT):
            halts.pop(e.vcpu, None)
        if e.vcpu >= 0 and e.kind in _OF_A_RUN:
            last[e.vcpu] = e
    for vcpu in range(vcpus):
        if vcpu in to_the_end:
            continue
        final, halt = last.get(vcpu), halts.get(vcpu)
        if final is None or halt is None or (final.kind is Kind.OUT and chr(final.value) in "SR"):
            continue
        yield Finding("stopped", f"vCPU {vcpu}: neither sleeps nor enters the guest after {halt.text}", line=halt.line)
