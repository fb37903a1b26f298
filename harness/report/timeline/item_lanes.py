# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe guest's log -> when each item of its program ran, and when it waited for its token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.contract.plan import Item, Op, Plan
from harness.contract.probe_abi import Record
from harness.evidence.guestlog import GuestLog, GuestRecord
from harness.judge.verdict_types import ItemRow, outcome_words, touch_words
from harness.model.events import Event
from harness.report.timeline.drawing import Lane, Look, Span, packed
from harness.report.timeline.guest_clock import GuestClock, boots_in, find_clock


@dataclass(slots=True)
class ItemTimes:
    """One item in one boot of its vCPU.  ``resumed``: (token, when) it went on with its token ready."""

    item: int
    vcpu: int
    spans: list[Span] = field(default_factory=list)
    resumed: list[tuple[int, int]] = field(default_factory=list)
    token: int = 0


def item_times(plan: Plan, log: GuestLog, events: Sequence[Event], end_ns: int) -> tuple[list[ItemTimes], list[str]]:
    """When items ran, and why it is not known of some vCPU."""
    found: list[ItemTimes] = []
    problems: list[str] = []
    for vcpu, records in enumerate(log.vcpus):
        for boot in boots_in(records):
            clock = find_clock(plan, boot, events, vcpu, log.tsc_khz)
            if clock is None:
                problems.append(f"items of vCPU {vcpu} are not drawn: nothing ties its TSC to the trace clock")
                continue
            found += _of_boot(vcpu, boot, clock, end_ns)
    return found, problems


def _of_boot(vcpu: int, records: Sequence[GuestRecord], clock: GuestClock, end_ns: int) -> Iterator[ItemTimes]:
    items: dict[int, ItemTimes] = {}
    open_: dict[int, tuple[int, Look]] = {}
    running = -1

    def to(item: int, look: Look | None, t: int) -> None:
        was = open_.pop(item, None)
        if was is not None:
            items[item].spans.append(Span(was[0], max(t, was[0]), was[1]))
        if look is not None:
            items.setdefault(item, ItemTimes(item, vcpu))
            open_[item] = t, look

    for r in records:
        t = clock.trace_ns(r.tsc)
        if r.item < 0:
            continue
        if r.kind is Record.START:
            to(r.item, Look.RAN, t)
            running = r.item
        elif r.kind is Record.TOKEN and r.item in open_:
            items[r.item].token = r.a
            to(r.item, Look.WAITS, t)
        elif r.kind is Record.WAKE and r.item in items:
            items[r.item].resumed.append((r.a, t))
            to(r.item, Look.RAN, t)
            running = r.item
        elif r.kind is Record.END and r.item in items:
            to(r.item, None, t)
            running = -1 if running == r.item else running
    for item in list(open_):
        to(item, None, end_ns)
    yield from items.values()


MAX_ROWS = 12
"""So many rows of items are drawn for a vCPU; what does not fit is told."""


def item_lanes(
    plan: Plan, times: Iterable[ItemTimes], rows: Sequence[ItemRow], most: int = MAX_ROWS
) -> tuple[list[Lane], list[str]]:
    """A lane for each vCPU with the items of its program in rows, and what was left out."""
    by_index = {row.index: row for row in rows}
    lanes: list[Lane] = []
    notes: list[str] = []
    every = list(times)
    for vcpu in range(plan.guest.vcpus):
        mine = sorted((t for t in every if t.vcpu == vcpu and t.spans), key=lambda t: t.spans[0].start_ns)
        if not mine:
            continue
        at = packed((t.spans[0].start_ns, t.spans[-1].end_ns) for t in mine)
        spans: list[Span] = []
        row_of: list[int] = []
        left = 0
        for one, row in zip(mine, at, strict=True):
            if row >= most:
                left += 1
                continue
            text = item_words(plan.items[one.item], by_index.get(one.item))
            for s in one.spans:
                spans.append(Span(s.start_ns, s.end_ns, s.look, text))
                row_of.append(row)
        if left:
            notes.append(f"{left} items of vCPU {vcpu} that wait beside {most} others are not drawn")
        lanes.append(Lane(f"i{vcpu}", f"items of vCPU {vcpu}", tuple(spans), (), tuple(row_of)))
    return lanes, notes


def item_words(item: Item, row: ItemRow | None) -> str:
    """An item, what was predicted for it and what was seen."""
    if row is None:
        what = touch_words(item) if item.op is Op.TOUCH else f"{item.op} {item.value:#x}" if item.value else item.op
        return f"item {item.index}: {what}"
    wrong = "" if row.ok else " - NOT AS PREDICTED"
    return (
        f"item {row.index}: {touch_words(row)}: predicted {'/'.join(row.predicted)}, seen {outcome_words(row.seen)}"
        f"{wrong}"
    )
