# SPDX-License-Identifier: GPL-2.0-or-later
"""Times of asynchronous page faults, and whether two samples differ: scipy is the reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.events import Kind
from harness.report.latency import MIN_COMPARED, Latency, histogram, joined, latencies, mann_whitney, spread
from tests.unit.report.judged import golden

SAMPLES = st.lists(st.integers(1, 40), min_size=MIN_COMPARED, max_size=60)


@given(SAMPLES, SAMPLES)
def test_mann_whitney_is_scipys(a: list[int], b: list[int]) -> None:
    ours = mann_whitney(a, b)
    if ours is None:
        assert len({*a, *b}) == 1
        return
    from scipy.stats import mannwhitneyu  # a second of imports, which who only collects tests need not pay

    theirs = mannwhitneyu(a, b, alternative="two-sided", method="asymptotic", use_continuity=True)
    assert ours.p == pytest.approx(float(theirs.pvalue), rel=1e-9, abs=1e-12)
    u_b = len(a) * len(b) - float(theirs.statistic)
    assert ours.later == pytest.approx(u_b / (len(a) * len(b)))


def test_nothing_is_said_of_few_values() -> None:
    assert mann_whitney([1] * (MIN_COMPARED - 1), [2] * 100) is None
    assert spread([]) is None


@given(st.lists(st.integers(1, 10**10), max_size=50))
def test_a_histogram_has_every_value_once(values: list[int]) -> None:
    assert sum(histogram(values, 10_000, 10**9, 40)) == len(values)


def test_each_power_of_ten_lies_in_its_bin() -> None:
    counts = histogram([11_000, 110_000, 1_100_000, 11_000_000, 110_000_000], 10_000, 10**9, 5)
    assert counts == [1, 1, 1, 1, 1]


@pytest.mark.parametrize(("folder", "name"), [("captures", "S29"), ("captures-noio", "S23"), ("captures", "S61")])
def test_one_time_for_each_event_that_it_is_of(folder: str, name: str) -> None:
    judged = golden(folder, name)
    assert judged.evidence is not None
    found = latencies(judged.evidence)
    count = {kind: sum(e.kind is kind for e in judged.evidence.events) for kind in (Kind.INJ, Kind.RDY)}
    assert len(found[Latency.TOKEN]) == count[Kind.INJ]
    assert len(found[Latency.READY]) <= count[Kind.RDY]
    assert len(found[Latency.RESUMED]) <= len(found[Latency.TOKEN])
    assert all(t >= 0 for times in found.values() for t in times)
    assert joined([found, found])[Latency.TOKEN] == found[Latency.TOKEN] * 2


def test_a_halted_vcpu_is_entered_after_its_page_is_ready() -> None:
    judged = golden("captures", "S61")  # CPL 0: all halts
    assert judged.evidence is not None
    found = latencies(judged.evidence)
    assert not found[Latency.TOKEN]
    assert len(found[Latency.ENTERED]) >= 1
