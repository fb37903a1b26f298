# SPDX-License-Identifier: GPL-2.0-or-later
"""A scenario that is known to reach something, changed a little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

from harness.contract.words import Access, PageStart
from harness.explore.ground import Ground, draw_ground, pick
from harness.explore.motifs import Scene
from harness.explore.themes import Theme
from harness.scenario.schema import Scenario


def mutate(draw: Random, scenario: Scenario, theme: Theme) -> Scenario:
    """One to three changes; whether the result is valid is check()'s affair."""
    for _ in range(pick(draw, {1: 50, 2: 30, 3: 20})):
        scenario = pick(draw, {partial(_more_steps, theme=theme): 35, **_CHANGES})(draw, scenario)
    return scenario


def ground_of(s: Scenario) -> Ground:
    """All of it but its steps."""
    return Ground(s.guest, s.apf, s.memory, s.swap, s.pages, s.l2)


def _more_steps(draw: Random, s: Scenario, theme: Theme) -> Scenario:
    """A motif of the theme, put in somewhere."""
    touched = [t for step in s.steps for t in (step.touch,) if isinstance(t, str) and t.endswith("]") and ":" not in t]
    at = draw.randint(0, len(s.steps))
    added = tuple(pick(draw, theme.motifs)(Scene(draw, ground_of(s), touched, theme.by_l2, theme.waits)))
    return replace(s, steps=(*s.steps[:at], *added, *s.steps[at:]))


def _without_step(draw: Random, s: Scenario) -> Scenario:
    if len(s.steps) < 2:
        return s
    at = draw.randrange(len(s.steps))
    return replace(s, steps=s.steps[:at] + s.steps[at + 1 :])


def _swapped_steps(draw: Random, s: Scenario) -> Scenario:
    """Two neighbours in the other order."""
    if len(s.steps) < 2:
        return s
    at = draw.randrange(len(s.steps) - 1)
    return replace(s, steps=(*s.steps[:at], s.steps[at + 1], s.steps[at], *s.steps[at + 2 :]))


def _other_access(draw: Random, s: Scenario) -> Scenario:
    at = draw.randrange(len(s.steps))
    step = s.steps[at]
    changed = draw.choice((
        replace(step, access=Access.WRITE if step.access is Access.READ else Access.READ),
        replace(step, cpl=3 - step.cpl),
        replace(step, interrupts=not step.interrupts),
        replace(step, then="wait" if step.then == "go-on" else "go-on"),
        replace(step, vcpu=draw.randrange(s.guest.vcpus)),
        replace(step, pause_us=draw.choice((0, 3000, 20000))),
    ))  # fmt: skip
    return replace(s, steps=(*s.steps[:at], changed, *s.steps[at + 1 :]))


def _other_device(draw: Random, s: Scenario) -> Scenario:
    """The release rule, the order, the read-ahead of another random scenario."""
    return replace(s, swap=draw_ground(draw).swap)


def _other_start(draw: Random, s: Scenario) -> Scenario:
    name = draw.choice(list(s.pages))
    return replace(s, pages={**s.pages, name: replace(s.pages[name], start=draw.choice(list(PageStart)))})


def _one_vcpu_more(draw: Random, s: Scenario) -> Scenario:
    if s.guest.vcpus >= 4:
        return s
    at = draw.randrange(len(s.steps))
    steps = (*s.steps[:at], replace(s.steps[at], vcpu=s.guest.vcpus), *s.steps[at + 1 :])
    return replace(s, guest=replace(s.guest, vcpus=s.guest.vcpus + 1), steps=steps)


_CHANGES: dict[Callable[[Random, Scenario], Scenario], int] = {
    _without_step: 8, _swapped_steps: 10, _other_access: 25, _other_device: 10, _other_start: 8, _one_vcpu_more: 8,
}  # fmt: skip
