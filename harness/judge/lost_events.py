# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on a run of whose trace the kernel lost events: it can convict, never acquit."""

from __future__ import annotations

from harness.contract.plan import GuestKind
from harness.contract.words import EndStatus
from harness.evidence.decode import Evidence
from harness.judge.blame import ending, first_words, in_order, timeline, titles
from harness.judge.machine_trouble import by_machine
from harness.judge.offered_features import offered_findings
from harness.judge.protocol_check import Checked
from harness.judge.recorded_fields import read_findings, written_findings
from harness.judge.verdict_types import Finding, Verdict
from harness.model.kernels import KernelModel
from harness.model.simulation.situation import Prediction
from harness.status import Status


def with_lost_events(evidence: Evidence, kernel: KernelModel, prediction: Prediction, checked: Checked) -> Verdict:
    """By a rule that was broken before the first loss, or by what loses nothing: the guest's own log and the logs of
    host and guest.

    That its deadline came convicts the kernel of a probe guest alone: the agent ends such a run long before the buffer
    is full (harness/agent/guest/probe_run.py), so that what has filled it goes round without end.  A Linux guest makes
    events as long as it runs, and that the machine was too slow for it can only be told of a whole trace.
    """
    findings = [*checked.findings, *_of_the_guest(evidence, prediction, kernel), *ending(evidence, prediction)]
    lost = f"the kernel lost {evidence.lost} trace events"
    if prediction.known_faults and not prediction.ends:  # it may be what has lost them
        lost += f" (predicted: {titles(prediction)})"
    ordered = in_order(findings)
    slow = evidence.end.status is EndStatus.GUEST_TIMEOUT and evidence.plan.guest.kind is GuestKind.LINUX
    convicting = tuple(f for f in ordered if not (slow and f.rule == "ending"))
    status, reason = Status.INCONCLUSIVE, f"{lost}: what is not there proves nothing"
    if convicting:
        status, reason = Status.FAIL, f"{first_words(ordered)}; {lost}"
    elif ordered:
        reason = f"{reason}; {first_words(ordered)}"
    if convicting and (found := by_machine(checked, ordered)) is not None:
        status, reason, ordered = found
    return Verdict(
        scenario=evidence.plan.scenario,
        model=kernel.name,
        variant=kernel.variant,
        status=status,
        reason=reason,
        findings=ordered,
        timeline=timeline(evidence, ordered),
        taints=evidence.end.status is not EndStatus.DONE or bool(checked.host_trouble),
    )


def _of_the_guest(evidence: Evidence, prediction: Prediction, kernel: KernelModel) -> list[Finding]:
    """What the guest has read and written, and was offered, by its own log."""
    if evidence.plan.guest.kind is not GuestKind.PROBE or evidence.guest is None:
        return []
    read = read_findings(evidence, prediction)
    return [*offered_findings(evidence, kernel), *read, *written_findings(evidence)]
