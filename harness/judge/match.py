# SPDX-License-Identifier: GPL-2.0-or-later
"""Prediction against what was seen: item by item, then the totals, then whatever nobody accounts for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.contract.plan import Access, Item, Op, Plan
from harness.judge.align import Alignment, SeenItem, issuer
from harness.judge.episodes import Episode, outcome
from harness.model.events import Event, Kind
from harness.model.outcomes import Count, Outcome
from harness.model.simulation.situation import ItemPrediction, Prediction


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which prediction and evidence part.  ``rule``: D-number, "item", "total", "value", "unexplained"."""

    rule: str
    message: str
    item: int = -1
    line: int = 0  # in trace/events.txt, 0 when it is about no line
    soft: bool = False


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One line of the item table, for people and for the comparison of two kernels."""

    index: int
    what: str
    predicted: str
    seen: str
    issuer: str
    ok: bool
    blocked_ms: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class TotalRow:
    name: str
    predicted: Count
    seen: int | None
    ok: bool


@dataclass(frozen=True, slots=True)
class View:
    """What the comparison looks at, gathered once."""

    plan: Plan
    alignment: Alignment
    events: tuple[Event, ...]
    dev: int
    probed: bool

    def outcome(self, episode: Episode) -> Outcome:
        return outcome(episode, self.dev, self.probed)


def match_items(view: View, prediction: Prediction) -> tuple[tuple[ItemRow, ...], tuple[Finding, ...]]:
    """The item table and what is wrong in it."""
    reads = [e.t_ns for e in view.events if e.kind is Kind.BIO and e.flag and e.worker and e.dev == view.dev]
    done: dict[int, int] = {}
    for e in view.events:
        if e.kind is Kind.DONE:
            done.setdefault(e.gpa >> 12, e.t_ns)
    rows: list[ItemRow] = []
    findings: list[Finding] = []
    for planned, predicted, seen in zip(view.plan.items, prediction.items, view.alignment.items, strict=True):
        if planned.op is not Op.TOUCH:
            findings += _op(planned, predicted, seen)
            continue
        outcomes = [view.outcome(e) for e in seen.episodes]
        by = ""
        if seen.episodes:
            first = seen.episodes[0]
            by = issuer(first, view.dev, reads, done.get(first.gpa >> 12, 0))
        wrong = list(_touch(view, planned, predicted, seen, outcomes, by, prediction))
        findings += wrong
        rows.append(
            ItemRow(
                index=planned.index,
                what=_what(planned),
                predicted=_predicted(predicted),
                seen=_seen(outcomes),
                issuer=by,
                ok=not wrong,
                blocked_ms=round(sum(e.blocked_ns for e in seen.episodes) / 1e6, 1),
                why=predicted.why,
            )
        )
    return tuple(rows), tuple(findings)


def _op(planned: Item, predicted: ItemPrediction, seen: SeenItem) -> Iterable[Finding]:
    if predicted.ends and not seen.ended:
        yield Finding("item", f"item {planned.index} ({planned.op}) never ended", planned.index)
    if seen.ended and predicted.gp != seen.gp:
        text = "a #GP" if predicted.gp else "no #GP"
        yield Finding("item", f"item {planned.index} ({planned.op}): predicted {text}, the guest saw the opposite",
                      planned.index)  # fmt: skip


def _touch(
    view: View,
    planned: Item,
    predicted: ItemPrediction,
    seen: SeenItem,
    outcomes: list[Outcome],
    by: str,
    prediction: Prediction,
) -> Iterable[Finding]:
    name = f"item {planned.index} ({_what(planned)})"
    at = seen.episodes[0].start.line if seen.episodes else 0
    first = outcomes[0] if outcomes else Outcome.NONE
    legal = (predicted.outcome, *predicted.also)
    if not any(_same(first, want, view.probed) for want in legal):
        yield Finding("item", f"{name}: predicted {' or '.join(legal)}, seen {first}; {predicted.why}",
                      planned.index, at)  # fmt: skip
    repeats = sum(1 for o in outcomes if o is Outcome.REPEATED)
    if not predicted.repeats.allows(repeats):
        yield Finding("item", f"{name}: predicted {predicted.repeats} repeated faults, seen {repeats}",
                      planned.index, at)  # fmt: skip
    if not predicted.faults.allows(len(outcomes)):
        line = seen.episodes[-1].start.line if seen.episodes else 0
        yield Finding("item", f"{name}: predicted {predicted.faults} faults, seen {len(outcomes)}"
                      f" ({_seen(outcomes)})", planned.index, line)  # fmt: skip
    if (
        _observable(prediction)
        and predicted.issuer in ("V", "W")
        and first is not Outcome.NONE
        and by != predicted.issuer
    ):
        yield Finding("item", f"{name}: the read was predicted to be issued by {_who(predicted.issuer)}, "
                      f"but {_who(by)} issued it", planned.index, at)  # fmt: skip
    if predicted.ends and not seen.ended:
        yield Finding("item", f"{name} never ended", planned.index, at)
    if not predicted.ends and seen.ended:
        yield Finding("item", f"{name} was predicted never to end, but it did", planned.index, at)
    if planned.access is Access.READ and seen.ended and predicted.value is not None and seen.value != predicted.value:
        yield Finding("value", f"{name}: the guest read {seen.value or 0:#x}, the page holds {predicted.value:#x}",
                      planned.index, at)  # fmt: skip


def _same(seen: Outcome, want: Outcome, probed: bool) -> bool:
    if seen is want:
        return True
    # Without the probes on handle_mm_fault a trace cannot tell these apart; the totals MAJ_V and MIN_V still do.
    return not probed and seen is Outcome.FAST and want in (Outcome.MINOR, Outcome.SYNC)


def _observable(prediction: Prediction) -> bool:
    counts = [prediction.totals.get(k) for k in ("BIO_V", "BIO_W")]
    return any(c is not None and c.high > 0 for c in counts)


def _who(by: str) -> str:
    return {"V": "the vCPU thread", "W": "a kworker", "": "nobody"}.get(by, by)


def _what(item: Item) -> str:
    state = "" if item.cpl == 3 and item.interrupts else f" CPL{item.cpl} IF={int(item.interrupts)}"
    return f"{item.access} {item.page}{state}{' after STI' if item.shadow else ''}"


def _predicted(p: ItemPrediction) -> str:
    text = "/".join((p.outcome, *p.also))
    return f"{text} +{p.repeats} repeated" if p.repeats.high else text


def _seen(outcomes: list[Outcome]) -> str:
    if not outcomes:
        return Outcome.NONE.value
    runs: list[list[object]] = []
    for o in outcomes:
        if runs and runs[-1][0] == o.value:
            runs[-1][1] = int(str(runs[-1][1])) + 1
        else:
            runs.append([o.value, 1])
    return ", ".join(f"{name}" if n == 1 else f"{n}x {name}" for name, n in runs)


def match_totals(prediction: Prediction, seen: Mapping[str, int]) -> tuple[tuple[TotalRow, ...], tuple[Finding, ...]]:
    """Every predicted total that was observed; what was not observed has no verdict and is shown as such."""
    rows = tuple(
        TotalRow(name, count, seen.get(name), name not in seen or count.allows(seen[name]))
        for name, count in prediction.totals.items()
    )
    wrong = tuple(
        Finding("total", f"{r.name}: predicted {r.predicted}, seen {r.seen}"
                + (f" ({r.predicted.reason})" if r.predicted.reason else ""))
        for r in rows
        if not r.ok
    )  # fmt: skip
    return rows, wrong
