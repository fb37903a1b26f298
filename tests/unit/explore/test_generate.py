# SPDX-License-Identifier: GPL-2.0-or-later
"""Random scenarios are valid, the same for the same seed, and nearly all of them are predicted."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.contract.plan import Op, vcpu_ids
from harness.errors import ModelError, UsageError
from harness.explore.generate import FROM_GENERATION, corpus_of, draw_scenario, generate
from harness.explore.ground import CROWD
from harness.model.kernels import find_kernel
from harness.model.protocol.checker import Checker, RuleContext
from harness.model.simulation.machine import run_once
from harness.model.simulation.simulate import variations
from harness.prediction import predict, pv_features, situation_of
from harness.scenario.build import build_plan
from harness.scenario.check import check
from harness.scenario.dump import dump
from harness.scenario.load import load_text
from harness.scenario.schema import L2
from tests.unit.model.test_simulate_protocol import EMITTED

KERNEL = find_kernel("nowait-6.1")
CORPUS = tuple(generate(99, n) for n in range(5))


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(draw=st.randoms(use_true_random=False), corpus=st.booleans())
def test_every_scenario_is_valid_and_touches_something(draw: Random, corpus: bool) -> None:
    scenario = draw_scenario(draw, corpus=CORPUS if corpus else ())
    assert list(check(scenario)) == []
    assert any(item.op is Op.TOUCH for item in build_plan(scenario, 1).items)
    assert load_text("x", dump(scenario)) == (scenario,)


@given(seed=st.integers(0, 1 << 40), number=st.integers(0, 10_000))
@settings(max_examples=20)
def test_the_same_seed_and_number_give_the_same(seed: int, number: int) -> None:
    assert generate(seed, number) == generate(seed, number)
    assert generate(seed, number, CORPUS) == generate(seed, number, CORPUS)
    assert generate(seed, number) != generate(seed + 1, number)


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(draw=st.randoms(use_true_random=False))
def test_an_older_generation_has_nothing_of_a_newer(draw: Random) -> None:
    scenario = draw_scenario(draw, generation=3)
    assert scenario.l2 == L2() and CROWD not in scenario.pages
    assert all(step.level == 1 and not step.page_fault and not step.reset and step.init < 0 for step in scenario.steps)


GIVEN = {
    3: {(5, 0): "165991dab4f6f9c9", (5, 1): "5ce1759384c39a42", (303, 246): "f551df72434a6b77"},
    4: {(401, 42): "7c695207cb7c1976", (401, 86): "fc43a3af6a9f3661", (491, 23): "e0892288f312e386"},
    5: {(26453570, 65): "4820bf7c2df7e3f9", (1801133370, 131): "7f2c147365b2fca2", (503, 7): "c97604aa0d9754bf"},
    6: {(601, 5): "58f7c1a4cfa56d8f", (601, 77): "a796939a628a13bb", (602, 9): "f67b7c210a3f559e"},
}
"""Generation -> seed and number -> digest of the scenario that it gave when it was the newest."""


@pytest.mark.parametrize("generation", GIVEN)
def test_an_older_generation_gives_what_it_gave(generation: int) -> None:
    for (seed, number), digest in GIVEN[generation].items():
        text = dump(generate(seed, number, generation=generation))
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_a_generation_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="generation 2 is none of 3, 4, 5, 6, 7"):
        generate(1, 1, generation=2)


@given(since=st.lists(st.integers(0, 9), max_size=6), generation=st.integers(0, 9))
def test_a_scenario_that_came_into_the_corpus_later_is_not_changed_by_an_older_generation(
    since: list[int], generation: int
) -> None:
    known = [replace(CORPUS[0], id=f"c{n}", tags=("explored", f"{FROM_GENERATION}{n}")) for n in since]
    plain = replace(CORPUS[0], id="c", tags=("explored",))
    assert corpus_of((plain, *known), generation) == (
        plain,
        *(s for s, n in zip(known, since, strict=True) if n <= generation),
    )


@pytest.mark.long
def test_nearly_all_are_predicted_and_reach_every_outcome() -> None:
    refused, outcomes = Counter[str](), Counter[str]()
    for number in range(70):
        try:
            prediction = predict(build_plan(generate(5, number), 1), KERNEL)
        except ModelError as exc:
            refused[exc.message] += 1
        else:
            outcomes.update(item.outcome for item in prediction.items)
    assert refused.total() <= 14, refused
    assert {"no-fault", "fast", "minor", "token", "halt", "repeated", "sync", "block"} <= outcomes.keys()


@pytest.mark.parametrize("name", ["nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1"])
def test_their_simulated_runs_obey_the_rules(name: str) -> None:
    """Model and rules know nothing of each other: under every timing, on kernels that differ."""
    kernel = find_kernel(name)
    unmodelled = faulty = 0
    for number in range(15):
        plan = build_plan(generate(11, number, CORPUS), 1)
        varied = variations(situation_of(plan, kernel))
        label, situation = varied[number % len(varied)]
        try:
            world = run_once(situation).world
        except ModelError as exc:  # check() cannot know whether the page has been read by then
            assert exc.message.startswith(("lock-read of", "reclaim of")), exc.message
            unmodelled += 1
            continue
        if world.known_faults:  # the kernel breaks rules there, and its prediction says so
            faulty += 1
            continue
        context = RuleContext(features=pv_features(plan, kernel), hlt_exits=not plan.guest.cpu_pm)
        checker = Checker(
            kernel,
            situation.vcpus,
            int_vec=0,
            en=0,
            first_id=1,
            context=context,
            recorded=EMITTED,
            vcpu_ids=vcpu_ids(plan.guest),
        )
        broken = [v for e in world.events for v in checker.feed(e) if v.strict]
        assert not broken, (number, label, broken)
        totals = world.totals
        assert totals["TRY"] == totals["NP"] + totals["REP"] + totals["FAIL"], (number, label)
    assert unmodelled <= 1 and faulty <= 3, "nearly all of them are followed"
