# SPDX-License-Identifier: GPL-2.0-or-later
"""Evidence, prediction and verdict -> a timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.contract.capture import AgentStep
from harness.evidence.decode import Evidence
from harness.judge.verdict import JudgedCapture
from harness.judge.verdict_types import Verdict
from harness.model.events import Event, Kind
from harness.model.simulation.simulate import Followed
from harness.report.timeline.drawing import Arrow, ArrowKind, Lane, Moment, Picture, Timeline, bounds, cut
from harness.report.timeline.item_lanes import MAX_ROWS, ItemTimes, item_lanes, item_times
from harness.report.timeline.vcpu_lanes import vcpu_lanes
from harness.report.timeline.work_lanes import AsyncWork, arrows_of, read_lane, work_lane, works_of

_SHOWN = frozenset({Kind.NP, Kind.REP, Kind.RDY, Kind.DONE, Kind.INJ, Kind.WRMSR, Kind.CLEAR})
_MARGIN = 40
"""A fortieth of the window is left free on either side."""


def build_timeline(judged: JudgedCapture, *, most_rows: int = MAX_ROWS) -> Timeline | None:
    """None where there is no trace to draw."""
    evidence, verdict = judged.evidence, judged.verdict
    if evidence is None or evidence.facts is None or not evidence.events:
        return None
    plan, facts = evidence.plan, evidence.facts
    events = sorted(evidence.recorded(), key=lambda e: e.t_ns)
    last = events[-1].t_ns
    works = works_of(events)
    times: list[ItemTimes] = []
    notes: list[str] = []
    if evidence.guest is not None:
        times, notes = item_times(plan, evidence.guest, events, last)
    items, left = item_lanes(plan, times, verdict.items, most_rows)
    notes += left
    reads = read_lane(events, facts.swap_dev, any(e.kind is Kind.BIO_END for e in events), last)
    lanes = [*vcpu_lanes(events, plan.guest.vcpus, last), work_lane(works, last), reads, *items]
    start, end = _window(evidence, events, items)
    arrows = [a for a in (*arrows_of(works), *_token_arrows(works, times)) if start <= a.from_ns and a.to_ns <= end]
    seen = Picture(tuple(cut(lane, start, end) for lane in lanes), tuple(arrows))
    return Timeline(
        title=f"{plan.scenario}: {plan.title}",
        start_ns=start,
        end_ns=end,
        seen=seen,
        predicted=_predicted(evidence, judged.followed, events, start, end),
        divergence=_divergence(evidence, verdict, events),
        notes=tuple(notes),
    )


def _window(evidence: Evidence, events: Sequence[Event], items: Sequence[Lane]) -> tuple[int, int]:
    """The time in which something of asynchronous page faults, or of the plan's items, happened."""
    planned = {page.gpa >> 12 for page in evidence.plan.pages}
    told = [e.t_ns for e in events if e.kind in _SHOWN or (e.kind is Kind.PF and e.gpa >> 12 in planned)]
    first, last = bounds(items)
    if first or last:
        told += [first, last]
    if not told:
        return events[0].t_ns, events[-1].t_ns + 1
    margin = max((max(told) - min(told)) // _MARGIN, 10_000)
    start = max(min(told) - margin, min(events[0].t_ns, *told))
    return start, min(max(told) + margin, max(events[-1].t_ns, *told) + 1)


def _token_arrows(works: Sequence[AsyncWork], times: Sequence[ItemTimes]) -> list[Arrow]:
    """From the vCPU to the item that is told of the token."""
    told = {(t.vcpu, t.token & 0xFFFFFFFF): t for t in times if t.token}
    found = []
    for w in works:
        item = told.get((w.vcpu, w.token))
        if item is not None and w.injected:
            at = next((s.start_ns for s in item.spans[1:]), item.spans[0].end_ns)
            text = f"token {w.token:#x} reaches item {item.item}"
            found.append(
                Arrow(ArrowKind.TOKEN, w.queued_ns, f"v{w.vcpu}", max(at, w.queued_ns), f"i{w.vcpu}", text, w.token)
            )
    return found


def _predicted(
    evidence: Evidence, followed: Followed | None, events: Sequence[Event], start: int, end: int
) -> Picture | None:
    """The model's events, on the trace clock, in the same lanes."""
    if followed is None or not followed.prediction.events:
        return None
    model = sorted(followed.prediction.events, key=lambda e: e.t_ns)
    base = _base(evidence, model, events)
    if base is None:
        return None
    moved = [replace(e, t_ns=e.t_ns + base) for e in model]
    works = works_of(moved)
    lanes = (
        *vcpu_lanes(moved, evidence.plan.guest.vcpus, moved[-1].t_ns),
        work_lane(works, end),
        read_lane(moved, 0, False, end),
    )
    arrows = tuple(a for a in arrows_of(works) if start <= a.from_ns and a.to_ns <= end)
    return Picture(tuple(cut(lane, start, end) for lane in lanes), arrows)


def _base(evidence: Evidence, model: Sequence[Event], events: Sequence[Event]) -> int | None:
    """What the model's clock shows 0 at.

    A prediction that follows a recording begins where the guest was let go; one of before the run is laid so that its
    first fault on a planned page is where the first such fault was seen.
    """
    planned = {page.gpa >> 12 for page in evidence.plan.pages}
    firsts = [
        next((e.t_ns for e in side if e.kind is Kind.PF and e.gpa >> 12 in planned), None) for side in (events, model)
    ]
    if firsts[0] is not None and firsts[1] is not None:
        return firsts[0] - firsts[1]
    return next((s.t_ns for s in evidence.steps if s.step is AgentStep.GO), None)


def _divergence(evidence: Evidence, verdict: Verdict, events: Sequence[Event]) -> Moment | None:
    """Where the first finding shows that shows at some time: at its line of the trace, or at its item's first fault."""
    for told in verdict.findings:
        if told.line:
            near = min(events, key=lambda e: abs(e.line - told.line) if e.line else 1 << 60)
            return Moment(near.t_ns, f"{told.rule}: {told.message}", told.line)
        if 0 <= told.item < len(evidence.plan.items):
            page = evidence.plan.items[told.item].gpa >> 12
            fault = next((e for e in events if e.kind is Kind.PF and e.gpa >> 12 == page), None)
            if fault is not None:
                return Moment(fault.t_ns, f"{told.rule}: {told.message}", fault.line)
    return None
