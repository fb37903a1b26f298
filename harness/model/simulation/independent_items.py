# SPDX-License-Identifier: GPL-2.0-or-later
"""What several items may do together, each as in some run that was tried, though no run had just these together.

A few orders are tried of very many.  What one of them did to one page another did to another page; nothing says that a
kernel may not do both at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from harness.contract.words import Op
from harness.model.outcomes import ASYNC, UNBOUNDED, Count, Outcome
from harness.model.simulation.situation import ItemPrediction, Prediction, Situation, Step
from harness.model.simulation.world import ItemLog

_WHY = "each item as in one of the orders that were tried, all at once"
_TICKS = "the vCPU's timer ends its halts, as often as it ticks meanwhile"
_REPEATED = frozenset({Outcome.REPEATED})
_GROUPS = (_REPEATED, ASYNC, frozenset(Outcome) - ASYNC - _REPEATED)
"""Faults of one item behind its first: of each group as many as in some run."""
_COUNTED: Mapping[str, frozenset[Outcome]] = {
    "PF": frozenset(Outcome), "TRY": ASYNC | _REPEATED, "NP": ASYNC, "REP": _REPEATED,
    "NPt": frozenset({Outcome.TOKEN, Outcome.LEFT, Outcome.TO_L2}), "NPh": frozenset({Outcome.HALT}),
    "MINOR": frozenset({Outcome.MINOR}), "FAST": frozenset({Outcome.FAST}), "SYNC": frozenset({Outcome.SYNC}),
    "BLOCK": frozenset({Outcome.BLOCK}), "MIN_V": frozenset({Outcome.MINOR, Outcome.BLOCK}),
    "MAJ_V": frozenset({Outcome.SYNC}), "WAITED": ASYNC | _REPEATED | {Outcome.SYNC, Outcome.BLOCK},
}  # fmt: skip
"""Totals that count faults of items by their outcome."""
_AS_OFTEN = ("PF", "TRY", "REP", "WAITED")

Runs = Sequence[Mapping[int, ItemLog]]
"""Of each run, what became of each item, by its index."""


def loosen(prediction: Prediction, runs: Runs, situation: Situation) -> Prediction:
    """The prediction of several runs with all that their items may do together."""
    items = tuple(_item(item, [run.get(item.index, ItemLog()) for run in runs]) for item in prediction.items)
    totals = {name: _total(name, count, runs, items) for name, count in prediction.totals.items()}
    steps = {step.index: step for step in situation.steps}
    if timed := {step.vcpu for step in situation.steps if step.kind is Op.TIMER}:
        ticking = {i.index for i in items if i.repeats.high and _may_tick(i, steps[i.index], timed)}
        items = tuple(_ticked(item) if item.index in ticking else item for item in items)
        if ticking:
            totals |= {name: Count(totals[name].low, UNBOUNDED, _TICKS) for name in _AS_OFTEN}
    return replace(prediction, items=items, totals=totals)


def _item(item: ItemPrediction, logs: Sequence[ItemLog]) -> ItemPrediction:
    rests = [log.faults[1:] for log in logs]
    most = sum(max(sum(f.outcome in group for f in rest) for rest in rests) for group in _GROUPS)
    high = most + any(log.faults for log in logs)
    if high <= item.faults.high:
        return item
    return replace(item, faults=Count(item.faults.low, high, _WHY), later=None)


def _may_tick(item: ItemPrediction, step: Step, timed: Collection[int]) -> bool:
    """Of a plain vCPU only where some order had fewer: else the reads wait for so many."""
    return step.nested or (step.vcpu in timed and item.repeats.low < item.repeats.high)


def _ticked(item: ItemPrediction) -> ItemPrediction:
    faults, repeats = (Count(count.low, UNBOUNDED, _TICKS) for count in (item.faults, item.repeats))
    return replace(item, faults=faults, repeats=repeats, later=None)


def _total(name: str, count: Count, runs: Runs, items: Iterable[ItemPrediction]) -> Count:
    counted = _COUNTED.get(name)
    if counted is None or count.high >= UNBOUNDED:
        return count
    of_runs = [sum(_of(log, counted) for log in run.values()) for run in runs]
    indices = {index for run in runs for index in run}  # also of what the guest touches besides its items
    by_item = [[_of(run.get(index, ItemLog()), counted) for run in runs] for index in indices]
    low = count.low - (min(of_runs) - sum(map(min, by_item)))
    high = count.high + sum(map(max, by_item)) - max(of_runs)
    if name == "PF":
        more = sum(item.faults.high - max(len(run.get(item.index, ItemLog()).faults) for run in runs) for item in items)
        high += max(0, more)
    return Count(max(0, low), high, _WHY) if (low, high) != (count.low, count.high) else count


def _of(log: ItemLog, counted: frozenset[Outcome]) -> int:
    return sum(fault.outcome in counted for fault in log.faults)
