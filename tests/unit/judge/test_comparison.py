# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of real runs of two kernels beside each other: 6.1 as Debian ships it, and 6.1 with the noio port."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.contract.plan import Plan
from harness.evidence.decode import read_plan
from harness.judge.comparison import (
    Comparison,
    OutcomeDifference,
    ReaderDifference,
    TotalDifference,
    compare,
    known_seen,
)
from harness.judge.verdict import judge_capture
from harness.judge.verdict_types import Reader, Verdict
from harness.model.kernels import find_kernel
from harness.model.known_differences import KNOWN_DIFFERENCES
from harness.model.outcomes import Outcome
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


def total(c: Comparison, name: str) -> TotalDifference:
    return next(d for d in c.differences if isinstance(d, TotalDifference) and d.name == name)


def outcomes(c: Comparison) -> OutcomeDifference:
    return next(d for d in c.differences if isinstance(d, OutcomeDifference))


def readers(c: Comparison) -> ReaderDifference:
    return next(d for d in c.differences if isinstance(d, ReaderDifference))


def test_page_cluster_0_is_asynchronous_on_one_side_only(s23: Comparison) -> None:
    assert s23.green
    outcome = outcomes(s23)
    assert (outcome.a, outcome.b, outcome.expected) == ((Outcome.SYNC,), (Outcome.TOKEN,), True)
    assert outcome.items == tuple(i.index for i in s23.plan.items)
    assert (readers(s23).a, readers(s23).b) == (Reader.VCPU, Reader.WORKER)
    pages = len(s23.plan.pages)
    assert (total(s23, "NPt").a, total(s23, "NPt").b) == (0, pages)
    assert (total(s23, "MAJ_V").a, total(s23, "MAJ_V").b) == (pages, 0)
    # Each read takes the delay of the plan, and the vCPU thread sits it out on one side.
    delay_ns = s23.plan.swap.delay_ms * 1_000_000
    assert s23.blocked_ns[0] >= pages * delay_ns > s23.blocked_ns[1]


def test_the_same_page_again(s29: Comparison) -> None:
    assert s29.green
    second = outcomes(s29)
    assert (second.a, second.b, second.items) == ((Outcome.REPEATED,), (Outcome.BLOCK,), (1,))


def test_known_differences_are_found_where_they_are(s23: Comparison, s29: Comparison) -> None:
    found = {known.id: where for known, where in known_seen((s23, s29))}
    assert found["X1"] == ("S23", "S29")
    assert found["X2"] == ("S23",)
    assert found["X9"] == ("S29",)
    assert found["X4"] == found["X5"] == found["X6"] == found["X7"] == found["X8"] == ()
    assert set(found) == {known.id for known in KNOWN_DIFFERENCES}


def test_the_same_capture_twice_does_not_differ() -> None:
    plan, a = side("captures", "S23", "nowait-6.1")
    same = compare(plan, a, a)
    assert same.differences == () and same.green
    assert known_seen((same,)) == (), "nothing is known to differ between two kernels of one variant"


def test_a_side_that_its_model_does_not_predict_is_not_expected() -> None:
    """The noio capture judged as if its kernel were a stock one: no model says that it should differ."""
    wrong = both("S23", "nowait-6.1")
    assert wrong.b.status is Status.FAIL
    assert not wrong.green
    assert not outcomes(wrong).expected
    assert not total(wrong, "BIO_V").expected


def test_one_unexpected_total_spoils_it(s23: Comparison) -> None:
    totals = tuple(
        dataclasses.replace(t, seen=(t.seen or 0) + 1, ok=False) if t.name == "PSWPIN" else t for t in s23.b.totals
    )
    spoilt = compare(s23.plan, s23.a, dataclasses.replace(s23.b, totals=totals))
    assert not spoilt.green
    assert [d for d in spoilt.differences if not d.expected] == [total(spoilt, "PSWPIN")]


@pytest.mark.parametrize(
    ("status", "green"), [(Status.UNSUPPORTED, True), (Status.INCONCLUSIVE, False), (Status.FAIL, False)]
)
def test_what_a_host_cannot_do_is_no_difference(status: Status, green: bool) -> None:
    plan, seen = side("captures", "S23", "nowait-6.1")
    other = dataclasses.replace(seen, status=status)
    assert compare(plan, seen, other).green is green
    assert compare(plan, other, seen).green is green
