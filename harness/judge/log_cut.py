# SPDX-License-Identifier: GPL-2.0-or-later
"""The log of a guest that was not at its end, as far as the trace goes.

The agent stops the trace first and reads the log last: a guest that runs on meanwhile, on a busy machine for seconds,
writes down what no event tells of.
"""

from __future__ import annotations

from dataclasses import replace

from harness.contract.plan import GuestKind, HostWord, says
from harness.contract.probe_abi import Record
from harness.contract.words import EndStatus
from harness.evidence.decode import Evidence
from harness.evidence.guestlog import GuestLog
from harness.judge.recorded_actions import progress
from harness.model.events import Kind


def within_the_trace(evidence: Evidence) -> GuestLog | None:
    """The records up to the time at which the trace was stopped; all, where that is not known.

    The guest's time stamps are put on the trace's clock by its first ready interrupt, which it writes down some time
    after kvm_inj_virq: a record may be taken for earlier than it was, never for later.
    """
    log, plan = evidence.guest, evidence.plan
    if log is None or plan.guest.kind is not GuestKind.PROBE or not runs_on(evidence):
        return log
    go, length, _ = progress(evidence.steps)
    anchor = _first_interrupt(evidence, log)
    if anchor is None or go < 0 or length < 0 or says(plan, HostWord.LOADVM):
        return log
    injected_ns, tsc = anchor
    last = tsc + (go + length - injected_ns) * log.tsc_khz // 1_000_000
    return replace(log, vcpus=tuple(tuple(e for e in records if e.tsc <= last) for records in log.vcpus))


def runs_on(evidence: Evidence) -> bool:
    """The guest went on when the trace had been stopped: its program had not ended, or one of its vCPUs had panicked,
    which stops no other."""
    status = evidence.end.status
    return status is EndStatus.GUEST_TIMEOUT or (status is EndStatus.GUEST_PANIC and evidence.plan.guest.vcpus > 1)


def _first_interrupt(evidence: Evidence, log: GuestLog) -> tuple[int, int] | None:
    """(trace clock, guest's clock) of the first ready interrupt of a vCPU that has one."""
    for vcpu, records in enumerate(log.vcpus):
        written = next((e.tsc for e in records if e.kind is Record.READY), None)
        vector = evidence.plan.guest.apf.vector
        told = (e.t_ns for e in evidence.of(Kind.VIRQ) if e.vcpu == vcpu and e.value == vector)
        injected = next(told, None)
        if written is not None and injected is not None:
            return injected, written
    return None
