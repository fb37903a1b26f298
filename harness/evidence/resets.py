# SPDX-License-Identifier: GPL-2.0-or-later
"""Resets: no tracepoint shows that the VMM writes MSR_KVM_ASYNC_PF_EN, or that an INIT zeroes it, so it is inferred.

QEMU pauses all vCPUs, resets the devices, emits the RESET event and then puts the registers of each vCPU by
KVM_SET_MSRS (softmmu/runstate.c:qemu_system_reset, target/i386/kvm/kvm.c:kvm_put_msrs at KVM_PUT_RESET_STATE), which
runs kvm_clear_async_pf_completion_queue; only then may any vCPU run again.  So each vCPU's clear lies before its first
event of a KVM_RUN after that; the boot CPU's first ENTRY is at the reset vector.

loadvm stands between a stop and a cont: it resets in the same way, without an event, and then puts INT and EN as the
snapshot has them (KVM_PUT_FULL_STATE), which is what the guest had written when the snapshot was taken.

An INIT clears the queue in the vCPU's own thread (arch/x86/kvm/lapic.c:kvm_apic_accept_events, x86.c:kvm_vcpu_reset),
between its acceptance, which is traced, and the ENTRY behind the SIPI, which is at the begin of a page (x86.c:
kvm_vcpu_deliver_sipi_vector).  Until whoever sends it has set pending_events, the vCPU may run on (__apic_accept_irq
traces before).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import CaptureDamaged
from harness.model.events import INIT, LOADED, MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, Event, Kind

_ELSEWHERE = re.compile(r"\brip 0x(?!0+\b)")
"""An ENTRY that no SIPI leads to."""
_AT_RESET_VECTOR = re.compile(r"\brip 0xfff0\b")
_NOT_OF_KVM_RUN = (Kind.OUT, Kind.IN, Kind.BIO, Kind.MM_FAULT, Kind.MM_FAULT_RET, Kind.USER_EXIT)
_SET_UP = (MSR_ASYNC_PF_INT, MSR_ASYNC_PF_EN)


@dataclass(frozen=True, slots=True)
class Reset:
    """One RESET event of QMP.  ``not_before_ns``: when it was asked for (0: the guest asked); ``seen_ns``: when the
    event was read, at the latest some scheduling delay after the vCPUs could run again."""

    not_before_ns: int
    seen_ns: int


@dataclass(frozen=True, slots=True)
class Load:
    """A loadvm of QMP: [start, end] of the command, and when the snapshot was taken."""

    saved_ns: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Boot:
    """[start, end] on the trace clock in which a vCPU ran firmware and the guest's own start-up after a reset."""

    vcpu: int
    start_ns: int
    end_ns: int


def _read(qmp: str, take: Callable[[int, Any], None]) -> None:
    """Give time (ns) and message of each line of qmp.jsonl to ``take``.

    :raise CaptureDamaged: a line is not an object with time and message, or ``take`` finds the message to be none.
    """
    for number, line in enumerate(qmp.splitlines(), 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            take(int(float(raw["t"]) * 1e9), raw["message"])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise CaptureDamaged(f"qmp.jsonl line {number}: {exc!r}") from exc


def _word(message: Any) -> str:
    """What the human monitor is told to do; empty: nothing."""
    told = message.get("execute") == "human-monitor-command"
    return str(message["arguments"]["command-line"]).partition(" ")[0] if told else ""


def parse_resets(qmp: str) -> tuple[Reset, ...]:
    """The resets in qmp.jsonl, in order, but for those of a machine that stood, and was loaded before it ran again.

    :raise CaptureDamaged: a line is not an object with time and message.
    """
    found: list[Reset] = []
    asked = stood = 0

    def take(at: int, message: Any) -> None:
        nonlocal asked, stood
        if message.get("execute") == "system_reset":
            asked = at
        elif message.get("execute") in ("stop", "cont"):
            stood = len(found)
        elif _word(message) == "loadvm":
            del found[stood:]
        elif message.get("event") == "RESET":
            found.append(Reset(asked, at))
            asked = 0

    _read(qmp, take)
    return tuple(found)


def parse_loads(qmp: str) -> tuple[Load, ...]:
    """The loadvm commands in qmp.jsonl that were answered, in order.

    :raise CaptureDamaged: a line is not an object with time and message.
    """
    found: list[Load] = []
    asked: dict[object, tuple[str, int]] = {}
    saved = 0

    def take(at: int, message: Any) -> None:
        nonlocal saved
        if message.get("execute") == "human-monitor-command":
            asked[message.get("id")] = _word(message), at
        elif "return" in message and message.get("id") in asked:
            command, start = asked.pop(message.get("id"))
            if command == "savevm":
                saved = at
            elif command == "loadvm":
                found.append(Load(saved, start, at))

    _read(qmp, take)
    return tuple(found)


def add_loads(events: Sequence[Event], loads: Iterable[Load], vcpus: int) -> tuple[Event, ...]:
    """The events with what each loadvm does to each vCPU, before that runs again: CLEAR, then INT and EN."""
    out = list(events)
    for load in loads:
        for vcpu in range(vcpus):
            own = (n for n, e in enumerate(out) if e.vcpu == vcpu and e.t_ns >= load.start_ns)
            at = next((n for n in own if out[n].kind not in _NOT_OF_KVM_RUN), len(out))
            t_ns = out[at].t_ns if at < len(out) else load.end_ns
            put = [Event(Kind.CLEAR, vcpu, t_ns=t_ns, value=LOADED, text="(inferred: loadvm)")]
            for msr in _SET_UP:
                value = _written(events, vcpu, msr, load.saved_ns)
                if value:
                    put.append(
                        Event(
                            Kind.WRMSR, vcpu, t_ns=t_ns, value=msr, data=value, text="(inferred: loadvm puts the MSR)"
                        )
                    )
            out[at:at] = put
    return tuple(out)


def _written(events: Iterable[Event], vcpu: int, msr: int, until_ns: int) -> int:
    """What the guest had written into the MSR by then; 0: nothing, or a reset or an INIT came behind it."""
    found = 0
    for event in events:
        if event.t_ns > until_ns:
            break
        if event.vcpu == vcpu and ((event.kind is Kind.CLEAR and not event.flag) or accepts_init(event)):
            found = 0
        elif event.kind is Kind.WRMSR and event.vcpu == vcpu and event.value == msr and not event.flag:
            found = event.data
    return found


def add_plugs(events: Sequence[Event], threads: Iterable[tuple[int, int]]) -> tuple[Event, ...]:
    """The events with a CLEAR before the first of each thread (vCPU, thread id) of a vCPU that was plugged in again.

    QEMU uses the KVM vCPU of the one that was unplugged, whose works live on, and writes EN = 0 in the new thread
    before it runs (target/i386/kvm/kvm.c:kvm_put_msrs at KVM_PUT_FULL_STATE).
    """
    out = list(events)
    for vcpu, tid in threads:
        at = next((n for n, e in enumerate(out) if e.vcpu == vcpu and e.tid == tid), None)
        if at is not None:
            out.insert(at, Event(Kind.CLEAR, vcpu, t_ns=out[at].t_ns, text="(inferred: plugged in again)"))
    return tuple(out)


def under_first_threads(
    events: Iterable[Event], first: Sequence[int], later: Iterable[tuple[int, int]]
) -> Iterator[Event]:
    """The events with one thread for each vCPU: ``first`` by its number, also where one of ``later`` (vCPU, thread id)
    came for it when it was plugged in again.  Of the two, only one is there at any time."""
    known = {tid: first[vcpu] for vcpu, tid in later}
    return (replace(event, tid=known[event.tid]) if event.tid in known else event for event in events)


def accepts_init(event: Event) -> bool:
    """The LAPIC takes an INIT; the vCPU's thread serves it when it next comes to it."""
    return event.kind is Kind.ACC and event.token == INIT


def add_inits(events: Sequence[Event]) -> tuple[Event, ...]:
    """The events with a CLEAR for each INIT that a vCPU accepted, before the ENTRY that its SIPI leads to."""
    accepted, entered = Kind.ACC, Kind.ENTRY  # a member of an enum takes its time to look up
    if not any(event.kind is accepted and accepts_init(event) for event in events):
        return tuple(events)
    out: list[Event] = []
    pending: set[int] = set()
    for event in events:
        if event.kind is entered and event.vcpu in pending and not _ELSEWHERE.search(event.text):
            pending.discard(event.vcpu)
            out.append(Event(Kind.CLEAR, event.vcpu, t_ns=event.t_ns, value=INIT, text="(inferred: INIT)"))
        elif event.kind is accepted and accepts_init(event):
            pending.add(event.vcpu)
        out.append(event)
    return tuple(out)


def add_clears(events: Sequence[Event], resets: Sequence[Reset], vcpus: int) -> tuple[Event, ...]:
    """The events with one CLEAR per vCPU and reset, each where it happened at the latest."""
    out = list(events)
    behind = 0  # the restart that the reset before it led to
    for number, reset in enumerate(resets):
        before_ns = resets[number + 1].seen_ns if number + 1 < len(resets) else 1 << 62
        boot = _restart(out, behind, reset.not_before_ns, before_ns)
        for vcpu in range(vcpus):
            at = _place(out, reset, boot, vcpu)
            t_ns = out[at].t_ns if at < len(out) else reset.seen_ns
            out.insert(at, Event(Kind.CLEAR, vcpu, t_ns=t_ns, text="(inferred: reset of the machine)"))
            boot = boot + 1 if boot is not None and at <= boot else boot
        behind = behind if boot is None else boot
    return tuple(out)


def _restart(events: Sequence[Event], behind: int, since_ns: int, before_ns: int) -> int | None:
    """Where the boot CPU enters the guest at the reset vector, and had been elsewhere since it was there before: it
    faults there, and enters again.  None: it did not run between this reset and the next, seen at ``before_ns``."""
    elsewhere = False
    for at in range(behind, len(events)):
        event = events[at]
        if event.kind is not Kind.ENTRY or event.vcpu != 0:
            continue
        if not _AT_RESET_VECTOR.search(event.text):
            elsewhere = True
        elif elsewhere and event.t_ns >= since_ns:
            return at if event.t_ns <= before_ns else None
    return None


def _place(events: Sequence[Event], reset: Reset, boot: int | None, vcpu: int) -> int:
    if boot is None:  # no vCPU ran again: after all that was traced before the event was read
        return next((i for i, e in enumerate(events) if e.t_ns >= reset.seen_ns), len(events))
    if vcpu == 0:
        return boot
    later = range(boot, len(events))
    return next((i for i in later if events[i].vcpu == vcpu and events[i].kind not in _NOT_OF_KVM_RUN), len(events))


def boots(events: Iterable[Event]) -> tuple[Boot, ...]:
    """From each CLEAR of a reset or INIT to that vCPU's next write of INT or EN, or to the next INIT where that comes
    before; to the end where none comes.  A loadvm boots nothing, and a reset and the INIT behind it boot once.

    Between two INITs the vCPU has begun anew, as who sends them waits for that (guest-images/probe/cpu.c:vcpu_start).
    """
    open_: dict[int, Event] = {}
    found: list[Boot] = []
    for event in events:
        if event.kind is Kind.CLEAR and not event.flag and event.value != LOADED:
            before = open_.get(event.vcpu)
            if before is not None and before.value == event.value == INIT:
                found.append(Boot(event.vcpu, before.t_ns, event.t_ns))
            open_[event.vcpu] = event
        elif event.kind is Kind.WRMSR and event.value in _SET_UP and event.vcpu in open_:
            found.append(Boot(event.vcpu, open_.pop(event.vcpu).t_ns, event.t_ns))
    found += [Boot(vcpu, clear.t_ns, 1 << 62) for vcpu, clear in open_.items()]
    return tuple(found)
