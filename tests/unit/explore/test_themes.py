# SPDX-License-Identifier: GPL-2.0-or-later
"""Each theme makes what it is about, of valid scenarios, and the model follows it there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.contract.words import By, HostWord, SwapKind
from harness.errors import ModelError
from harness.explore.generate import GENERATION, draw_new
from harness.explore.ground import CROWD
from harness.explore.themes import Theme, themes_of
from harness.model.delivery import ASYNC_PF_PER_VCPU
from harness.model.events import MSR_ASYNC_PF_ACK, MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, Event, Kind
from harness.model.kernels import find_kernel
from harness.model.simulation.machine import run_once
from harness.model.simulation.world import World
from harness.prediction import situation_of
from harness.scenario.build import build_plan
from harness.scenario.check import check
from harness.scenario.schema import Scenario

KERNEL = find_kernel("nowait-6.12")
THEMES = {theme.name: theme for theme in themes_of(GENERATION)}


def of(theme: Theme) -> Iterator[Scenario]:
    """Valid scenarios of the theme."""
    for number in count():
        scenario = draw_new(Random(f"{theme.name} {number}"), theme)
        if next(check(scenario), None) is None:
            yield scenario


def worlds(theme: Theme, number: int) -> Iterator[tuple[Scenario, World]]:
    """Some of its scenarios, each with a run of the model to its end."""
    for scenario in islice(of(theme), number):
        try:
            yield scenario, run_once(situation_of(build_plan(scenario, 1), KERNEL)).world
        except ModelError:  # a lock-read of a page that has been read by then
            continue


def outstanding(events: Iterable[Event]) -> Iterator[tuple[Event, int]]:
    """Each event, and how many works of its vCPU were announced and not ready before it."""
    works: dict[int, set[int]] = {}
    for event in events:
        own = works.setdefault(event.vcpu, set())
        yield event, len(own)
        if event.kind is Kind.NP:
            own.add(event.token)
        elif event.kind is Kind.RDY:
            own.discard(event.token)
        elif event.kind is Kind.CLEAR or (
            event.kind is Kind.WRMSR and event.value == MSR_ASYNC_PF_EN and not event.data & 1
        ):
            own.clear()


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(draw=st.randoms(use_true_random=False))
def test_a_crowd_is_more_than_a_vcpu_may_have_outstanding(draw: Random) -> None:
    crowd = draw_new(draw, THEMES["crowded"]).pages[CROWD]
    assert crowd.groups * crowd.run > ASYNC_PF_PER_VCPU


@pytest.mark.long
def test_crowds_fill_the_queue_of_a_vcpu_and_go_past_it() -> None:
    seen = [(max(n for _, n in outstanding(world.events)), world) for _, world in worlds(THEMES["crowded"], 40)]
    full = [world for most, world in seen if most == ASYNC_PF_PER_VCPU]
    assert full and max(most for most, _ in seen) == ASYNC_PF_PER_VCPU
    assert any(world.totals["FAIL"] for world in full), "one was refused, because the queue was full"


def test_an_l2_gets_exits_for_tokens_and_is_halted_where_l1_has_not_asked() -> None:
    ran = [world.events for s, world in worlds(THEMES["nested"], 40) if any(step.level == 2 for step in s.steps)]
    kinds = {event.kind for events in ran for event in events}
    assert {Kind.L2_ENTRY, Kind.L2_EXIT, Kind.NP, Kind.RDY} <= kinds


@pytest.mark.parametrize("msr", [MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, MSR_ASYNC_PF_ACK])
def test_registers_are_written_while_works_are_outstanding(msr: int) -> None:
    assert any(
        event.kind is Kind.WRMSR and event.value == msr and works
        for _, world in worlds(THEMES["registers"], 40)
        for event, works in outstanding(world.events)
    )


def test_interrupts_are_kept_off_in_each_way_while_works_are_outstanding() -> None:
    """By GIF, the task priority and an interrupt in service; and each event whose delivery touches a page is there."""
    steps = [step for scenario in islice(of(THEMES["kept off"]), 60) for step in scenario.steps]
    assert {(True, False, True), (False, True, True), (False, False, False)} <= {
        (step.tpr, step.in_service, step.gif) for step in steps if not step.interrupts
    }
    assert any(step.in_service and step.interrupts for step in steps)
    assert {step.by for step in steps if step.touch} == set(By)
    words = {word.do for step in steps for word in step.host}
    assert {HostWord.SYNC, HostWord.NMI, HostWord.RECLAIM, HostWord.WAIT_SETTLED} <= words
    ran = [world.events for _, world in worlds(THEMES["kept off"], 40)]
    assert any(event.kind is Kind.ACC and works for events in ran for event, works in outstanding(events))


def test_vcpus_touch_pages_one_behind_the_other() -> None:
    """On more than one kind of device; and most of these programs come to their end."""
    drawn = list(islice(of(THEMES["in turn"]), 60))
    assert sum(any(step.after for step in s.steps) for s in drawn) > 40
    assert {s.swap.kind for s in drawn} >= {SwapKind.GATED, SwapKind.ZRAM}
    ended = [
        all(i.index in world.items and world.items[i.index].ended for i in build_plan(scenario, 1).items)
        for scenario, world in worlds(THEMES["in turn"], 40)
    ]
    assert sum(ended) > len(ended) // 2


def test_an_l2_has_its_pages_elsewhere_and_sockets_have_holes() -> None:
    assert any(scenario.l2.moved for scenario in islice(of(THEMES["nested"]), 40))
    guests = [scenario.guest for scenario in islice(of(THEMES["kept off"]), 60)]
    assert any(guest.cores and guest.vcpus > guest.cores for guest in guests)
