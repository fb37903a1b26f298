# SPDX-License-Identifier: GPL-2.0-or-later
"""Random scenarios: a seed and a number give a scenario, the same on every machine for one GENERATION and one corpus.

Nothing but ``random.Random`` decides, so that the tests can put Hypothesis in its place (``st.randoms()``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from harness.contract.words import Backing, SwapKind
from harness.explore.ground import Ground, draw_ground
from harness.explore.motifs import draw_steps
from harness.explore.mutate import mutate
from harness.scenario.check import check
from harness.scenario.schema import Scenario, Swap

GENERATION = 3
"""Raised when a change to this package makes other scenarios of the same seeds."""
DEADLINE_S = 8
_TRIES = 200
_FROM_CORPUS = 0.35


def draw_scenario(draw: Random, name: str = "random", corpus: Sequence[Scenario] = ()) -> Scenario:
    """A valid scenario, new or one of the corpus changed; what check() refuses is drawn again."""
    for _ in range(_TRIES):
        found = mutate(draw, draw.choice(corpus)) if corpus and draw.random() < _FROM_CORPUS else _new(draw)
        found = replace(found, id=name, title="made at random", catalogue="", why="", tags=("explored",))
        if any(step.touch for step in found.steps) and next(check(found), None) is None:
            return found
    raise AssertionError(f"no valid scenario in {_TRIES} tries")


def _new(draw: Random) -> Scenario:
    ground = draw_ground(draw)
    steps = draw_steps(draw, ground)
    touches = [step.touch for step in steps if isinstance(step.touch, str) and step.touch]
    swap = _with_errors(draw, ground, touches)
    return Scenario(
        id="new", title="", guest=ground.guest, apf=ground.apf, memory=ground.memory, swap=swap, pages=ground.pages,
        steps=steps, deadline_s=DEADLINE_S,
    )  # fmt: skip


def _with_errors(draw: Random, ground: Ground, touches: list[str]) -> Swap:
    """Sometimes the read of a page that is touched fails."""
    on_swap = ground.swap.kind is SwapKind.GATED and ground.memory.backing is not Backing.FILE
    single = [touch for touch in touches if ":" not in touch]
    if not on_swap or not single or draw.random() >= 0.05:
        return ground.swap
    return replace(ground.swap, error=(draw.choice(single),))


def generate(seed: int, number: int, corpus: Sequence[Scenario] = ()) -> Scenario:
    """Scenario ``number`` of a seed."""
    return draw_scenario(Random(f"apf explore {GENERATION} {seed} {number}"), f"x{GENERATION}-{seed}-{number}", corpus)
