# SPDX-License-Identifier: GPL-2.0-or-later
"""Prediction against what was seen: item by item, then the totals, then whatever nobody accounts for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from harness.contract.plan import Access, Item, Op, Plan
from harness.judge.align import Alignment, SeenItem, issuer
from harness.judge.episodes import Episode, outcome
from harness.judge.verdict_types import (
    Finding,
    ItemRow,
    Reader,
    TotalRow,
    outcome_words,
    reader_words,
    touch_words,
)
from harness.model.events import Event, Kind
from harness.model.outcomes import ASYNC, Outcome
from harness.model.simulation.situation import ItemPrediction, Prediction


@dataclass(frozen=True, slots=True)
class View:
    """What the comparison looks at, gathered once.

    :ivar kicks: from when to when the agent was at something that gets the vCPU threads out of KVM_RUN (trace clock).
    :ivar places: gfn -> first sector of the page on the device, where that is known and stays.
    """

    plan: Plan
    alignment: Alignment
    events: tuple[Event, ...]
    dev: int
    probed: bool
    kicks: tuple[tuple[int, int], ...] = ()
    places: Mapping[int, int] = field(default_factory=dict)
    runs_on: bool = False  # the guest was not at its end: what its log has may have come after the trace
    cut: Set[int] = frozenset()  # lines of the kvm_page_fault events whose outcome the recording does not have

    def outcome(self, episode: Episode) -> Outcome:
        return outcome(episode, self.dev, self.probed)


def match_items(view: View, prediction: Prediction) -> tuple[tuple[ItemRow, ...], tuple[Finding, ...]]:
    """The item table and what is wrong in it."""
    reads = [e for e in view.events if e.kind is Kind.BIO and e.flag and e.worker and e.dev == view.dev]
    done: dict[int, list[int]] = defaultdict(list)
    for e in view.events:
        if e.kind is Kind.DONE:
            done[e.gpa >> 12].append(e.t_ns)
    rows: list[ItemRow] = []
    findings: list[Finding] = []
    for planned, predicted, seen in zip(view.plan.items, prediction.items, view.alignment.items, strict=True):
        if planned.op is not Op.TOUCH:
            findings += _op(planned, predicted, seen)
            continue
        whole = [e for e in seen.episodes if e.start.line not in view.cut]
        if len(whole) < len(seen.episodes) and not _sleeps_for_ever(view, predicted, seen.episodes):
            seen = replace(seen, episodes=whole)
        outcomes = [view.outcome(e) for e in seen.episodes]
        by = Reader.NOBODY
        if seen.episodes:
            # What another process has read may be reclaimed before it is told: then a later fault has it read.
            read = seen.episodes[predicted.read_at if predicted.read_at < len(seen.episodes) else 0]
            completed = next((t for t in done[read.gpa >> 12] if t >= read.start.t_ns), 0)
            by = issuer(read, view.dev, reads, completed, view.places.get(read.gpa >> 12, -1))
        wrong = list(_touch(view, planned, predicted, seen, outcomes, by, prediction))
        findings += wrong
        rows.append(
            ItemRow(
                index=planned.index,
                page=planned.page,
                access=planned.access,
                cpl=planned.cpl,
                interrupts=planned.interrupts,
                shadow=planned.shadow,
                predicted=(predicted.outcome, *predicted.also),
                repeats=predicted.repeats,
                seen=tuple(outcomes),
                reader=by,
                ok=not wrong,
                blocked_ns=sum(e.blocked_ns for e in seen.episodes),
                why=predicted.why,
            )
        )
    return tuple(rows), tuple(findings)


def _sleeps_for_ever(view: View, predicted: ItemPrediction, episodes: list[Episode]) -> bool:
    """Whether the last of these page faults, which the recording cuts off, is as the model has one that sleeps for a
    page to the end: it is no less than was seen, then."""
    if not predicted.faults.allows(len(episodes)) or predicted.faults.allows(len(episodes) - 1):
        return False
    wants = predicted.later[-1:] if len(episodes) > 1 and predicted.later else (predicted.outcome, *predicted.also)
    return any(_same(view.outcome(episodes[-1]), want, view.probed) for want in wants)


def _op(planned: Item, predicted: ItemPrediction, seen: SeenItem) -> Iterable[Finding]:
    if predicted.ends and predicted.end_known and not seen.ended:
        yield Finding("item", f"item {planned.index} ({planned.op}) never ended", planned.index, consequence=True,
                      about="end")  # fmt: skip
    if seen.ended and predicted.gp != seen.gp:
        text = "a #GP" if predicted.gp else "no #GP"
        yield Finding("item", f"item {planned.index} ({planned.op}): predicted {text}, the guest saw the opposite",
                      planned.index, about="gp")  # fmt: skip


def _touch(
    view: View,
    planned: Item,
    predicted: ItemPrediction,
    seen: SeenItem,
    outcomes: list[Outcome],
    by: Reader,
    prediction: Prediction,
) -> Iterable[Finding]:
    name = f"item {planned.index} ({touch_words(planned)})"
    at = seen.episodes[0].start.line if seen.episodes else 0
    first = outcomes[0] if outcomes else Outcome.NONE
    legal = (predicted.outcome, *predicted.also)
    if first is Outcome.LEFT and Outcome.HALT in legal and any(map(seen.episodes[0].first, (Kind.ACC, Kind.RDY))):
        first = Outcome.HALT  # an interrupt, or a page of before, ended the halt before it was slept in
    if not any(_same(first, want, view.probed) for want in legal):
        yield Finding("item", f"{name}: predicted {' or '.join(legal)}, seen {first}; {predicted.why}",
                      planned.index, at, about="outcome")  # fmt: skip
    repeats = sum(1 for o in outcomes if o is Outcome.REPEATED)
    if not predicted.repeats.allows(repeats):
        yield Finding("item", f"{name}: predicted {predicted.repeats} repeated faults, seen {repeats}",
                      planned.index, at, about="repeats")  # fmt: skip
    if not predicted.faults.allows(len(outcomes)):
        line = seen.episodes[-1].start.line if seen.episodes else 0
        yield Finding("item", f"{name}: predicted {predicted.faults} faults, seen {len(outcomes)}"
                      f" ({outcome_words(outcomes)})", planned.index, line, about="faults")  # fmt: skip
    elif predicted.later is not None and len(outcomes) > 1:
        pairs = zip(seen.episodes[1:], outcomes[1:], predicted.later, strict=True)
        for number, (episode, got, want) in enumerate(pairs, 2):
            if not _same(got, want, view.probed):
                yield Finding("item", f"{name}: its fault {number} was predicted {want}, seen {got}", planned.index,
                              episode.start.line, about="later")  # fmt: skip
    if (
        _observable(prediction)
        and predicted.issuer in (Reader.VCPU, Reader.WORKER)
        and first is not Outcome.NONE
        and by != predicted.issuer
    ):
        due = reader_words(Reader(predicted.issuer))
        yield Finding("item", f"{name}: the read was predicted to be issued by {due}, but {reader_words(by)} issued it",
                      planned.index, at, about="reader")  # fmt: skip
    if predicted.ends and predicted.end_known and not seen.ended:
        yield Finding("item", f"{name} never ended", planned.index, at, consequence=True, about="end")
    if not predicted.ends and predicted.end_known and seen.ended and not view.runs_on:
        yield Finding("item", f"{name} was predicted never to end, but it did", planned.index, at, about="end")
    if planned.access is Access.READ and seen.ended and predicted.value is not None and seen.value != predicted.value:
        yield Finding("value", f"{name}: the guest read {seen.value or 0:#x}, the page holds {predicted.value:#x}",
                      planned.index, at, about="page")  # fmt: skip


def _same(seen: Outcome, want: Outcome, probed: bool) -> bool:
    if seen is want or (seen is Outcome.QUEUED and want in ASYNC):
        return True
    # Without the probes on handle_mm_fault a trace cannot tell these apart; the totals MAJ_V and MIN_V still do.
    return not probed and seen is Outcome.FAST and want in (Outcome.MINOR, Outcome.SYNC)


def _observable(prediction: Prediction) -> bool:
    counts = [prediction.totals.get(k) for k in ("BIO_V", "BIO_W")]
    return any(c is not None and c.high > 0 for c in counts)


def match_totals(prediction: Prediction, seen: Mapping[str, int]) -> tuple[tuple[TotalRow, ...], tuple[Finding, ...]]:
    """Every predicted total that was observed; what was not observed has no verdict and is shown as such."""
    rows = tuple(
        TotalRow(name, count, seen.get(name), name not in seen or count.allows(seen[name]))
        for name, count in prediction.totals.items()
    )
    wrong = tuple(
        Finding("total", f"{r.name}: predicted {r.predicted}, seen {r.seen}"
                + (f" ({r.predicted.reason})" if r.predicted.reason else ""), about=r.name)
        for r in rows
        if not r.ok
    )  # fmt: skip
    return rows, wrong
