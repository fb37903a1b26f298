# SPDX-License-Identifier: GPL-2.0-or-later
"""A verdict goes through its file and comes back the same, whatever is in it; another format is refused."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.judge.verdict import judge_capture
from harness.judge.verdict_types import (
    MAPPED,
    WAITED,
    Finding,
    ItemRow,
    Reader,
    TimelineRow,
    TotalRow,
    UncheckedRule,
    Verdict,
    outcome_words,
)
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count, Outcome

DATA = Path(__file__).parents[2] / "data"


def judged(folder: str, name: str, model: str) -> Verdict:
    root = DATA / folder / name
    files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    return judge_capture(files, find_kernel(model))


counts = st.builds(Count, st.integers(0, 9), st.integers(9, 10**9), st.text())
verdicts = st.builds(
    Verdict,
    format=st.just(1),
    findings=st.lists(st.builds(Finding), max_size=3).map(tuple),
    items=st.lists(st.builds(ItemRow, repeats=counts), max_size=3).map(tuple),
    totals=st.lists(st.builds(TotalRow, predicted=counts), max_size=3).map(tuple),
    columns=st.lists(st.builds(TotalRow, predicted=counts), max_size=3).map(tuple),
    unchecked=st.lists(st.builds(UncheckedRule), max_size=2).map(tuple),
    timeline=st.lists(st.builds(TimelineRow), max_size=2).map(tuple),
    retries=st.lists(st.text(), max_size=2).map(tuple),
)


@given(verdicts)
def test_any_verdict_comes_back_from_its_file(verdict: Verdict) -> None:
    assert Verdict.from_json(verdict.to_json()) == verdict


@pytest.mark.parametrize(
    ("folder", "name", "model"),
    [("captures", "S23", "nowait-6.1"), ("captures", "S29", "noio-6.1"), ("captures-noio", "S29", "noio-6.1")],
)
def test_the_verdict_of_a_real_capture_comes_back(folder: str, name: str, model: str) -> None:
    verdict = judged(folder, name, model)
    assert verdict.items and verdict.totals and verdict.columns
    assert Verdict.from_json(verdict.to_json()) == verdict


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("[]", "format"),
        ("{}", "format"),
        ('{"format": 2, "scenario": "S1", "status": "PASS"}', "its format is 2"),
        ('{"format": 1, "scenario": "S1", "status": "FINE"}', r"\$.status"),
        ('{"format": 1, "scenario": "S1", "status": "PASS", "mood": "good"}', r"\$.mood"),
        ('{"format": 1, "scenario": "S1"}', r"\$.status"),
    ],
)
def test_what_is_no_verdict_of_this_format_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Verdict.from_json(text)


def test_a_verdict_that_lost_a_key_of_a_row_is_refused() -> None:
    raw = json.loads(judged("captures", "S29", "nowait-6.1").to_json())
    del raw["items"][0]["seen"]
    with pytest.raises(UsageError, match=r"\$.items\[0\].seen: missing"):
        Verdict.from_json(json.dumps(raw))


def columns(verdict: Verdict) -> dict[str, tuple[str, int | None]]:
    return {c.name: (str(c.predicted), c.seen) for c in verdict.columns}


def test_the_columns_count_touches_by_their_first_fault() -> None:
    """S23: 24 touches that each read synchronously; in S29 the second touch is a repeated fault, then a mapping."""
    s23 = judged("captures", "S23", "nowait-6.1")
    assert columns(s23) == {"tokens": ("0", 0), "halts": ("0", 0), "sync": ("24", 24), "mapped": ("0", 0)}
    for name in ("S29", "S36", "S39", "S61", "S64"):
        verdict = judged("captures", name, "nowait-6.1")
        assert all(c.ok for c in verdict.columns), (name, columns(verdict))
        by_hand = [row.seen[0] if row.seen else Outcome.NONE for row in verdict.items]
        assert columns(verdict)["sync"][1] == sum(o in WAITED for o in by_hand)
        assert columns(verdict)["mapped"][1] == sum(o in MAPPED for o in by_hand)


@given(st.lists(st.sampled_from(Outcome), max_size=12))
def test_outcome_words_tell_the_runs(outcomes: list[Outcome]) -> None:
    words = outcome_words(outcomes).split(", ")
    assert len(words) == max(1, len([0 for _ in groupby(outcomes)]))
    told = [word.split("x ") for word in words]
    assert sum(int(word[0]) if len(word) == 2 else 1 for word in told) == max(1, len(outcomes))


def test_readers_are_what_the_model_calls_them() -> None:
    assert [r.value for r in Reader] == ["V", "W", "other", ""]
