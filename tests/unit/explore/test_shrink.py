# SPDX-License-Identifier: GPL-2.0-or-later
"""A disagreement planted in the model is made small: what is left still shows it, and nothing smaller does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ModelError
from harness.explore.generate import generate
from harness.explore.shrink import shrink, smaller_ones
from harness.model.kernels import KernelModel, find_kernel
from harness.prediction import predict
from harness.scenario.build import build_plan
from harness.scenario.check import check
from harness.scenario.schema import Scenario

SOUND = find_kernel("nowait-6.1")
PLANTED = {
    "a single page is read without waiting": replace(SOUND, do_poll=False),
    "a read fault maps the page writable": replace(SOUND, swapin_read_writable=not SOUND.swapin_read_writable),
}


def shows(scenario: Scenario, wrong: KernelModel) -> bool:
    """The wrong model predicts another outcome of an item."""
    try:
        plan = build_plan(scenario, 1)
        pairs = zip(predict(plan, SOUND).items, predict(plan, wrong).items, strict=True)
    except ModelError:
        return False
    return any(a.outcome is not b.outcome for a, b in pairs)


@pytest.mark.long
@pytest.mark.parametrize("name", PLANTED)
def test_what_is_left_shows_it_and_nothing_smaller_does(name: str) -> None:
    wrong = PLANTED[name]
    large = next(s for s in (generate(3, n) for n in range(1000)) if len(s.steps) > 5 and shows(s, wrong))
    small = shrink(large, lambda s: shows(s, wrong), tries=2000)
    assert shows(small, wrong)
    assert list(check(small)) == []
    assert not any(shows(s, wrong) for s in smaller_ones(small))
    assert len(small.steps) <= 4


@pytest.mark.long
def test_a_bound_on_the_runs_holds_and_keeps_the_best_so_far() -> None:
    wrong = PLANTED["a single page is read without waiting"]
    large = next(s for s in (generate(3, n) for n in range(1000)) if len(s.steps) > 5 and shows(s, wrong))
    runs = 0

    def still(scenario: Scenario) -> bool:
        nonlocal runs
        runs += 1
        return shows(scenario, wrong)

    small = shrink(large, still, tries=5)
    assert runs == 5
    assert shows(small, wrong)


@settings(max_examples=25)
@given(number=st.integers(0, 10_000))
def test_all_that_is_tried_is_valid_and_different(number: int) -> None:
    scenario = generate(1, number)
    for smaller in smaller_ones(scenario):
        assert smaller != scenario
        assert list(check(smaller)) == []
