# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of real runs of two kernels beside each other: 6.1 as Debian ships it, and 6.1 with the noio port."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.contract.plan import Plan
from harness.evidence.decode import read_plan
from harness.judge.comparison import KNOWN, Comparison, Difference, compare, observed
from harness.judge.verdict import Verdict, judge_capture
from harness.model.kernels import find_kernel
from harness.status import Status

DATA = Path(__file__).parents[2] / "data"


def side(folder: str, name: str, model: str) -> tuple[Plan, Verdict]:
    root = DATA / folder / name
    files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    return read_plan(files), judge_capture(files, find_kernel(model))


def both(name: str, model_b: str = "noio-6.1") -> Comparison:
    plan, a = side("captures", name, "nowait-6.1")
    return compare(plan, a, side("captures-noio", name, model_b)[1])


@pytest.fixture(scope="module")
def s23() -> Comparison:
    return both("S23")


@pytest.fixture(scope="module")
def s29() -> Comparison:
    return both("S29")


def difference(c: Comparison, what: str) -> Difference:
    return next(d for d in c.differences if d.what == what)


def test_page_cluster_0_is_asynchronous_on_one_side_only(s23: Comparison) -> None:
    assert s23.green
    outcome = difference(s23, "outcome")
    assert (outcome.a, outcome.b, outcome.expected) == ("sync", "token", True)
    assert outcome.items == tuple(i.index for i in s23.plan.items)
    assert (difference(s23, "read issued by").a, difference(s23, "read issued by").b) == ("vCPU thread", "kworker")
    pages = str(len(s23.plan.pages))
    assert (difference(s23, "NPt").a, difference(s23, "NPt").b) == ("0", pages)
    assert (difference(s23, "MAJ_V").a, difference(s23, "MAJ_V").b) == (pages, "0")
    # Each read takes the delay of the plan, and the vCPU thread sits it out on one side.
    delay_ms = s23.plan.swap.delay_ms
    assert s23.blocked_ms[0] >= len(s23.plan.pages) * delay_ms > s23.blocked_ms[1]


def test_the_same_page_again(s29: Comparison) -> None:
    assert s29.green
    second = difference(s29, "outcome")
    assert (second.a, second.b, second.items) == ("repeated", "block", (1,))


def test_known_differences_are_found_where_they_are(s23: Comparison, s29: Comparison) -> None:
    found = {known.id: where for known, where in observed((s23, s29))}
    assert found["X1"] == ("S23", "S29")
    assert found["X2"] == ("S23",)
    assert found["X9"] == ("S29",)
    assert found["X4"] == found["X6"] == found["X7"] == found["X8"] == ()
    assert set(found) == {known.id for known in KNOWN}


def test_the_same_capture_twice_does_not_differ() -> None:
    plan, a = side("captures", "S23", "nowait-6.1")
    same = compare(plan, a, a)
    assert same.differences == () and same.green
    assert all(not where for _, where in observed((same,)))


def test_a_side_that_its_model_does_not_predict_is_not_expected() -> None:
    """The noio capture judged as if its kernel were a stock one: no model says that it should differ."""
    wrong = both("S23", "nowait-6.1")
    assert wrong.b.status is Status.FAIL
    assert not wrong.green
    assert not difference(wrong, "outcome").expected
    assert not difference(wrong, "NPt").expected


def test_one_unexpected_total_spoils_it(s23: Comparison) -> None:
    totals = tuple(
        dataclasses.replace(t, seen=(t.seen or 0) + 1, ok=False) if t.name == "PSWPIN" else t for t in s23.b.totals
    )
    spoilt = compare(s23.plan, s23.a, dataclasses.replace(s23.b, totals=totals))
    assert not spoilt.green
    assert [d.what for d in spoilt.differences if not d.expected] == ["PSWPIN"]
