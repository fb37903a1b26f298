# SPDX-License-Identifier: GPL-2.0-or-later
"""What was seen in a run, held against what the model says of its plan before anything runs (``apf predict``).

The judge asks the model again with what the run has decided: which thread was first, what a page was when it was
touched.  What is said beforehand has to allow every answer that a kernel may give.
"""

from __future__ import annotations

from harness.judge.verdict_types import ItemRow, Verdict, outcome_words
from harness.model.outcomes import Outcome
from harness.model.simulation.situation import ItemPrediction, Prediction

_EITHER = {Outcome.QUEUED: (Outcome.TOKEN, Outcome.HALT), Outcome.LEFT: (Outcome.LEFT, Outcome.HALT)}
"""What the evidence does not tell apart: an interrupt may end an artificial halt before it is slept in, and then it
looks as if an L2's token was left behind."""


def unforetold(said: Prediction, verdict: Verdict) -> tuple[str, ...]:
    """What was seen and is not among what was said, in words; empty: all was.

    :param said: of predict() without a proof, for the plan of the run that the verdict is about.
    """
    items = {item.index: item for item in said.items}
    found = [text for row in verdict.items if (text := _item(items.get(row.index), row))]
    for row in verdict.totals:
        count = said.totals.get(row.name)
        if count is not None and row.seen is not None and not count.allows(row.seen):
            found.append(f"{row.name}: said {count}, seen {row.seen}")
    return tuple(found)


def _item(said: ItemPrediction | None, row: ItemRow) -> str:
    where = f"item {row.index} {row.page}".rstrip()
    if said is None:
        return f"{where}: nothing was said of it"
    legal = {said.outcome, *said.also}
    if legal.isdisjoint(_EITHER.get(row.first, (row.first,))):
        return f"{where}: said {' or '.join(sorted(legal))}, seen {outcome_words(row.seen)}"
    if not said.faults.allows(len(row.seen)):
        return f"{where}: said {said.faults} faults, seen {outcome_words(row.seen)}"
    return ""
