# SPDX-License-Identifier: GPL-2.0-or-later
"""What was seen, held against what is said before a run: golden captures, and what they had not said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.evidence.decode import read_plan
from harness.judge.foretold import unforetold
from harness.judge.verdict import judge_capture
from harness.judge.verdict_types import Verdict
from harness.model.outcomes import Count, Outcome
from harness.model.simulation.situation import Prediction
from harness.prediction import predict
from harness.run.judge_folder import model_of
from tests.unit.judge.golden import NAMES, load


def _said_and_seen(name: str) -> tuple[Prediction, Verdict]:
    files = load(name)
    kernel = model_of(files, "nowait")
    return predict(read_plan(files), kernel, orders=1), judge_capture(files, kernel)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_seen_in_the_golden_captures_had_been_said(name: str) -> None:
    assert unforetold(*_said_and_seen(name)) == ()


def test_what_had_not_been_said_is_named() -> None:
    said, seen = _said_and_seen("S29")
    first = next(item for item in said.items if item.outcome is Outcome.TOKEN)

    def with_first(**more: object) -> Prediction:
        items = tuple(replace(i, **more) if i.index == first.index else i for i in said.items)  # type: ignore[arg-type]
        return replace(said, items=items)

    where = f"item {first.index} {first.page}"
    other = with_first(outcome=Outcome.SYNC, also=(Outcome.HALT,))
    assert unforetold(other, seen)[0].startswith(f"{where}: said halt or sync, seen token")
    assert unforetold(with_first(also=(Outcome.SYNC,)), seen) == ()
    often = with_first(faults=Count.exactly(7), later=None)
    assert unforetold(often, seen)[0].startswith(f"{where}: said 7 faults, seen token")
    assert unforetold(replace(said, items=()), seen)[0].endswith("nothing was said of it")
    totals = replace(said, totals={**said.totals, "NP": Count(5, 6, "")})
    assert unforetold(totals, seen) == (f"NP: said 5..6, seen {seen.total('NP')}",)


@pytest.mark.parametrize(
    ("seen", "said", "allowed"),
    [
        (Outcome.QUEUED, Outcome.TOKEN, True), (Outcome.QUEUED, Outcome.HALT, True),
        (Outcome.QUEUED, Outcome.SYNC, False),
        (Outcome.LEFT, Outcome.HALT, True), (Outcome.LEFT, Outcome.TOKEN, False), (Outcome.HALT, Outcome.LEFT, False),
    ],
)  # fmt: skip
def test_what_the_evidence_cannot_tell_apart(seen: Outcome, said: Outcome, *, allowed: bool) -> None:
    prediction, verdict = _said_and_seen("S29")
    row, item = verdict.items[0], prediction.items[0]
    verdict = replace(verdict, items=(replace(row, seen=(seen, *row.seen[1:])),))
    prediction = replace(prediction, items=(replace(item, outcome=said, also=()),))
    assert (unforetold(prediction, verdict) == ()) is allowed


def test_a_total_that_was_not_observed_is_not_held_against_anything() -> None:
    said, seen = _said_and_seen("S29")
    rows = tuple(replace(row, seen=None) if row.name == "NP" else row for row in seen.totals)
    totals = {**said.totals, "NP": Count.exactly(99)}
    assert unforetold(replace(said, totals=totals), replace(seen, totals=rows)) == ()
