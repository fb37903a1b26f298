# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture -> a verdict: the one place where PASS, FAIL, INCONCLUSIVE, UNSUPPORTED and ERROR are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.contract.plan import GuestKind, Op, Plan
from harness.errors import CaptureDamaged
from harness.evidence.decode import End, Evidence, decode, read_end, read_plan
from harness.judge.align import MAPPED, WAITED, Alignment, align
from harness.judge.episodes import split
from harness.judge.match import Finding, ItemRow, TotalRow, View, match_items, match_totals
from harness.judge.match_linux import match_linux
from harness.judge.preconditions import problems
from harness.judge.protocol_check import Checked, check
from harness.judge.seen_totals import seen_totals
from harness.judge.unexplained import unexplained
from harness.model.kernels import KernelModel
from harness.model.simulation.situation import Prediction
from harness.prediction import predict
from harness.status import Status


@dataclass(frozen=True, slots=True)
class Verdict:
    """``findings`` are ordered by where they show in the trace; the first is the first divergence."""

    scenario: str
    kernel: str
    status: Status
    reason: str
    findings: tuple[Finding, ...] = ()
    items: tuple[ItemRow, ...] = ()
    totals: tuple[TotalRow, ...] = ()
    hints: tuple[Finding, ...] = ()  # soft rules
    unchecked: tuple[tuple[str, str], ...] = ()  # (rule, why)
    timeline: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seen: Mapping[str, int] = field(default_factory=dict)  # tokens, halts, sync, mapped
    predicted: Mapping[str, str] = field(default_factory=dict)
    taints: bool = False  # the host must not be used again


def judge_capture(files: Mapping[str, bytes], kernel: KernelModel) -> Verdict:
    """Judge a capture folder (names to bytes) against the model of the kernel that it ran on.

    Never raises for bad evidence: damage is INCONCLUSIVE with the reason.

    :raise ModelError: the plan cannot be predicted for this kernel.
    """
    name = "?"
    try:
        plan, end = read_plan(files), read_end(files)
        name = plan.scenario
        early = _early(end)
        if early is not None:
            return Verdict(name, kernel.name, early, end.reason, taints=early is Status.ERROR)
        evidence = decode(files)
        return judge(evidence, kernel)
    except CaptureDamaged as exc:
        return Verdict(name, kernel.name, Status.INCONCLUSIVE, f"damaged capture: {exc.message}")


def _early(end: End) -> Status | None:
    return {
        "precondition": Status.INCONCLUSIVE,
        "unsupported": Status.UNSUPPORTED,
        "error": Status.ERROR,
    }.get(end.status)


def judge(evidence: Evidence, kernel: KernelModel) -> Verdict:
    """Judge decoded evidence whose run reached the guest's program."""
    plan = evidence.plan
    unproved = next(problems(plan, evidence.precondition), "")
    if unproved:
        return Verdict(plan.scenario, kernel.name, Status.INCONCLUSIVE, f"precondition: {unproved}")
    prediction = predict(plan, kernel, evidence.precondition or None)
    checked = check(evidence, kernel, prediction)
    if evidence.lost:
        return _cut(evidence, kernel, prediction, checked)
    totals_seen = seen_totals(evidence, checked.counts, kernel)
    if plan.guest.kind is GuestKind.LINUX:
        rows: tuple[ItemRow, ...] = ()
        findings = list(match_linux(evidence, prediction))
    else:
        view = _view(evidence)
        rows, wrong = match_items(view, prediction)
        findings = [*wrong, *(Finding("guest-log", text) for text in view.alignment.problems)]
        findings += unexplained(view, prediction)
    totals, wrong_totals = match_totals(prediction, totals_seen)
    findings += wrong_totals
    findings += checked.findings
    findings += _ending(evidence, prediction)
    status, reason = _status(evidence, prediction, findings, totals_seen)
    ordered = tuple(sorted(findings, key=lambda f: (f.line == 0, f.line, f.rule not in _LAST)))
    return Verdict(
        scenario=plan.scenario,
        kernel=kernel.name,
        status=status,
        reason=reason or (_first(ordered) if ordered else ""),
        findings=ordered,
        items=rows,
        totals=totals,
        hints=checked.hints,
        unchecked=checked.unchecked,
        timeline=_timeline(evidence, ordered),
        notes=prediction.notes,
        seen=_columns(totals_seen, rows),
        predicted=_predicted_columns(plan, prediction),
        taints=evidence.end.status in ("guest-timeout", "qemu-died") or bool(checked.host_trouble),
    )


_LAST = ("total",)


def _cut(evidence: Evidence, kernel: KernelModel, prediction: Prediction, checked: Checked) -> Verdict:
    """A trace that lost events can convict, never acquit: by a rule broken before the first loss, or by the guest's own
    log, which loses nothing."""
    findings = [*checked.findings, *_ending(evidence, prediction)]
    lost = f"the kernel lost {evidence.lost} trace events"
    ordered = tuple(sorted(findings, key=lambda f: (f.line == 0, f.line)))
    return Verdict(
        scenario=evidence.plan.scenario,
        kernel=kernel.name,
        status=Status.FAIL if ordered else Status.INCONCLUSIVE,
        reason=f"{_first(ordered)}; {lost}" if ordered else f"{lost}: what is not there proves nothing",
        findings=ordered,
        timeline=_timeline(evidence, ordered),
        taints=evidence.end.status != "done" or bool(checked.host_trouble),
    )


def _view(evidence: Evidence) -> View:
    if evidence.facts is None or evidence.guest is None:
        raise CaptureDamaged("the run reached the guest's program, but facts or guest log are missing")
    alignment: Alignment = align(evidence.plan, evidence.guest, split(evidence.events))
    return View(evidence.plan, alignment, evidence.events, evidence.facts.swap_dev, evidence.facts.has_mm_fault)


def _ending(evidence: Evidence, prediction: Prediction) -> list[Finding]:
    status = evidence.end.status
    if status == "done":
        return [] if prediction.ends else [Finding("item", "the program was predicted never to end, but it did")]
    if not prediction.ends and status == "guest-timeout":
        return []
    words = {
        "guest-timeout": "the guest's program did not end within its deadline",
        "guest-panic": "the guest met an exception that it cannot explain",
        "qemu-died": "QEMU ended before the guest did",
    }
    return [Finding("ending", f"{words.get(status, status)}: {evidence.end.reason}".rstrip(": "))]


def _status(
    evidence: Evidence, prediction: Prediction, findings: list[Finding], seen: Mapping[str, int]
) -> tuple[Status, str]:
    if not evidence.events:
        return Status.INCONCLUSIVE, "the trace is empty: nothing was observed"
    wanted = prediction.totals.get("PF")
    if evidence.plan.guest.kind is GuestKind.PROBE and wanted and wanted.low > 0 and seen.get("PF", 0) == 0:
        return Status.INCONCLUSIVE, "nothing happened: no planned page was ever faulted on"
    if findings:
        return Status.FAIL, ""
    if evidence.end.status == "guest-timeout":
        # Only a predicted one comes here.  The deadline proves no more than that nothing came until then.
        stuck = ", ".join(str(i.index) for i in prediction.items if not i.ends)
        return Status.PASS, (
            f"stopped at its deadline of {evidence.plan.deadline_s} s: the model says that the program never ends"
            f" (items {stuck or 'none'}); all that happened until then is as predicted"
        )
    return Status.PASS, ""


def _first(findings: tuple[Finding, ...]) -> str:
    """The first divergence, and which other rules were broken."""
    head = findings[0]
    others = sorted({f.rule for f in findings[1:]} - {head.rule})
    named = f": {', '.join(others)}" if others else ""
    more = f" (and {len(findings) - 1} more{named})" if len(findings) > 1 else ""
    return f"{head.rule}: {head.message}{more}"


def _timeline(evidence: Evidence, findings: tuple[Finding, ...], around: int = 14) -> tuple[str, ...]:
    """The trace around the first divergence, the line itself marked."""
    at = next((f.line for f in findings if f.line), 0)
    if not at:
        return ()
    near = [e for e in evidence.events if at - 400 <= e.line <= at + 400]
    index = min(range(len(near)), key=lambda i: abs(near[i].line - at))
    shown = near[max(0, index - around) : index + around]
    return tuple(
        f"{'>' if e.line == at else ' '} {e.t_ns / 1e9:14.6f} {_who(e.vcpu, e.worker, e.tid):<10} {e.text}"
        for e in shown
    )


def _who(vcpu: int, worker: bool, tid: int) -> str:
    return f"vCPU {vcpu}" if vcpu >= 0 else ("kworker" if worker else f"tid {tid}")


def _columns(totals: Mapping[str, int], rows: tuple[ItemRow, ...]) -> dict[str, int]:
    waited = sum(1 for r in rows if r.seen.startswith(("sync", "block")))
    mapped = sum(1 for r in rows if r.seen.startswith(("fast", "minor", "no-fault")))
    return {"tokens": totals.get("NPt", 0), "halts": totals.get("NPh", 0), "sync": waited, "mapped": mapped}


def _predicted_columns(plan: Plan, prediction: Prediction) -> dict[str, str]:
    names = [p.outcome for i, p in zip(plan.items, prediction.items, strict=False) if i.op is Op.TOUCH]
    return {
        "tokens": str(prediction.totals.get("NPt", "0")),
        "halts": str(prediction.totals.get("NPh", "0")),
        "sync": str(sum(1 for n in names if n in WAITED)),
        "mapped": str(sum(1 for n in names if n in MAPPED)),
    }
