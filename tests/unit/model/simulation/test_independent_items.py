# SPDX-License-Identifier: GPL-2.0-or-later
"""What several items may do at once, each as in some order that was tried."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.words import Op
from harness.model.kernels import find_kernel
from harness.model.outcomes import UNBOUNDED, Count, Outcome
from harness.model.simulation.independent_items import loosen
from harness.model.simulation.situation import ItemPrediction, Prediction, Situation
from harness.model.simulation.world import Fault, ItemLog
from harness.prediction import predict, situation_of
from tests.unit.scenarios import plan_of

SITUATION: Situation = situation_of(plan_of("S23"), find_kernel("nowait-6.1"))
RESOLVED = (Outcome.MINOR, Outcome.FAST, Outcome.BLOCK, Outcome.REPEATED)
later = st.lists(st.sampled_from(RESOLVED), max_size=3)
logs = st.builds(lambda more: log(Outcome.TOKEN, *more), later)
runs = st.integers(1, 4).flatmap(
    lambda items: st.lists(st.fixed_dictionaries(dict.fromkeys((-1, *range(items)), logs)), min_size=1, max_size=4)
)


def log(*outcomes: Outcome) -> ItemLog:
    return ItemLog(faults=[Fault(o, "", 0, "", "") for o in outcomes])


def merged(found: list[dict[int, ItemLog]]) -> Prediction:
    """As simulate() puts runs together: the range of what there was."""

    def often(values: list[int]) -> Count:
        return Count(min(values), max(values), "")

    items = tuple(
        ItemPrediction(n, 0, f"f[{n}]", Outcome.TOKEN, later=None, faults=often([len(r[n].faults) for r in found]),
                       repeats=often([sum(f.outcome is Outcome.REPEATED for f in r[n].faults) for r in found]))
        for n in sorted(found[0]) if n >= 0
    )  # fmt: skip
    totals = {"PF": often([sum(len(each.faults) for each in r.values()) for r in found])}
    for name, outcome in (("MINOR", Outcome.MINOR), ("REP", Outcome.REPEATED), ("DONE", Outcome.NONE)):
        totals[name] = often([sum(f.outcome is outcome for each in r.values() for f in each.faults) for r in found])
    return Prediction("k", items, totals, ())


@given(runs, st.data())
def test_any_mixture_of_runs_is_allowed_and_what_all_agree_on_stays_exact(
    found: list[dict[int, ItemLog]], data: st.DataObject
) -> None:
    before = merged(found)
    after = loosen(before, found, SITUATION)
    mixed = {n: data.draw(st.sampled_from([run[n] for run in found])) for n in found[0]}
    for item in after.items:
        assert item.faults.allows(len(mixed[item.index].faults))
    assert after.totals["PF"].allows(sum(len(each.faults) for each in mixed.values()))
    for name, outcome in (("MINOR", Outcome.MINOR), ("REP", Outcome.REPEATED)):
        assert after.totals[name].allows(sum(f.outcome is outcome for each in mixed.values() for f in each.faults))
    assert after.totals["DONE"] == before.totals["DONE"], "no item counts it"
    if all(run == found[0] for run in found):
        assert after == before


def test_each_kind_of_fault_as_often_as_in_some_run() -> None:
    found = [{0: log(Outcome.TOKEN, Outcome.REPEATED)}, {0: log(Outcome.TOKEN, Outcome.BLOCK)}]
    after = loosen(merged(found), found, SITUATION)
    assert (after.items[0].faults.high, after.totals["PF"].high) == (3, 3)


def test_no_bound_becomes_one() -> None:
    found = [{0: log(Outcome.TOKEN)}, {0: log(Outcome.TOKEN, Outcome.REPEATED)}]
    before = merged(found)
    before = replace(before, totals={**before.totals, "PF": Count(1, UNBOUNDED, "for ever")})
    assert loosen(before, found, SITUATION).totals["PF"].high == UNBOUNDED


@pytest.mark.long
def test_ticks_of_an_l1_end_the_halts_of_its_l2_and_tell_of_its_tokens() -> None:
    """S136 on a kernel with F2: 77 times while one page was read, on a busy machine; and nothing else asks for
    KVM_REQ_EVENT between a token and the entry, so that L1 is told by a tick alone."""
    said = predict(plan_of("S136"), find_kernel("nowait-6.1"), orders=1)
    assert any(item.repeats.high >= UNBOUNDED for item in said.items)
    assert all(said.totals[total].high >= UNBOUNDED for total in ("PF", "TRY", "REP"))
    touches = [item for item in said.items if item.page]
    assert all({Outcome.TOKEN, Outcome.LEFT} <= {item.outcome, *item.also} for item in touches[:3])


def test_how_often_they_end_it_is_not_known() -> None:
    said = predict(plan_of("S397"), find_kernel("noio-6.1"), orders=1)
    assert [item.repeats.high >= UNBOUNDED for item in said.items if item.page] == [True, True]


def test_nor_of_a_plain_vcpu_whose_reads_do_not_wait_for_so_many() -> None:
    """Ten times in a fresh situation on 7.3, where two to six were said."""
    plan = plan_of("S30")
    often = tuple(replace(i, value=i.value // 10) if i.op is Op.TIMER else i for i in plan.items)
    freely = replace(plan, items=often, swap=replace(plan.swap, release="halted"))
    for each, known in ((plan, True), (freely, False)):
        said = predict(each, find_kernel("nowait-7.3"), orders=1)
        assert [item.repeats.high < UNBOUNDED for item in said.items if item.repeats.high] == [known]
        assert (said.totals["REP"].high < UNBOUNDED) is known
