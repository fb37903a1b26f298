# SPDX-License-Identifier: GPL-2.0-or-later
"""Mappings that is_page_fault_stale refuses, in a run that was recorded, and before any."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.model.events import Kind
from harness.model.kernels import find_kernel
from harness.model.outcomes import Outcome
from harness.model.simulation.lost_mapping import must_be_stale
from harness.model.simulation.recorded import FaultCall, Recorded, RecordedEvent
from harness.prediction import predict
from tests.unit.scenarios import plan_of

GFN, V = 7, 10
RECORDED = Recorded(
    marks=((), ()), threads=(V, 11), works={}, read_ends={}, changes={}, busy=((), ()), unmaps=(), ticks=((), ()),
    host=(), log=((), ()), end_ns=1000, calls={GFN: (FaultCall(100, 150, V), FaultCall(160, 300, V))},
)  # fmt: skip
FAULT = RecordedEvent(Kind.PF, GFN, 90, 90, until_ns=400)
READY = RecordedEvent(Kind.RDY, 5, 100, 400, until_ns=400)


@pytest.mark.parametrize("mark", [FAULT, READY])
@pytest.mark.parametrize(
    ("since_ns", "until_ns", "stale"),
    [
        (100, 300, True),
        (155, 158, True),  # between the look that does not wait and the one that does
        (99, 200, False),  # it may have ended before mmu_invalidate_seq was read
        (200, 301, False),  # ... or behind is_page_fault_stale
    ],
)
def test_one_that_ended_between_the_first_call_and_the_last(
    mark: RecordedEvent, since_ns: int, until_ns: int, *, stale: bool
) -> None:
    recorded = replace(RECORDED, invalidations=(FaultCall(since_ns, until_ns, 99),))
    assert must_be_stale(recorded, 0, GFN, mark) is stale


def test_calls_of_others_and_of_other_pages_and_faults_are_not_its_own() -> None:
    recorded = replace(RECORDED, invalidations=(FaultCall(155, 158, 99),))
    assert not must_be_stale(recorded, 1, GFN, FAULT)
    assert not must_be_stale(recorded, 0, GFN + 1, FAULT)
    assert not must_be_stale(recorded, 0, GFN, replace(FAULT, start_ns=155, until_ns=400))
    assert not must_be_stale(recorded, 0, GFN, replace(FAULT, until_ns=150))


@pytest.mark.parametrize("kernel", ["nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1"])
def test_a_prefetch_that_sleeps_while_another_page_is_unmapped_maps_nothing(kernel: str) -> None:
    """S478, before a run: the guest faults once more, and GUP-fast finds the page."""
    said = predict(plan_of("S478"), find_kernel(kernel), orders=1)
    item = next(item for item in said.items if item.page == "f[0]")
    assert item.faults.allows(2) and Outcome.TOKEN in (item.outcome, *item.also)
    assert said.totals["FAST"].high >= 1
