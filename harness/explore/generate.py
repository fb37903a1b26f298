# SPDX-License-Identifier: GPL-2.0-or-later
"""Random scenarios: a seed and a number give a scenario, the same on every machine for one generation and one corpus.

Nothing but ``random.Random`` decides, so that the tests can put Hypothesis in its place (``st.randoms()``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from harness.contract.words import Backing, SwapKind
from harness.explore.ground import Ground, draw_ground, pick
from harness.explore.motifs import Scene, draw_steps
from harness.explore.mutate import mutate
from harness.explore.themes import Theme, themes_of
from harness.scenario.check import check
from harness.scenario.schema import Scenario, Swap

GENERATION = 7
"""Raised when a change to this package would make other scenarios of the same seeds: themes_of() has the older ones."""
FROM_GENERATION = "from-generation-"
"""A scenario of the corpus with the tag "from-generation-5" is changed by that generation and later ones."""
_TRIES = 200
_FROM_CORPUS = 0.35


def generate(seed: int, number: int, corpus: Sequence[Scenario] = (), generation: int = GENERATION) -> Scenario:
    """Scenario ``number`` of a seed.

    :raise UsageError: nothing is known of this generation.
    """
    draw = Random(f"apf explore {generation} {seed} {number}")
    return draw_scenario(draw, f"x{generation}-{seed}-{number}", corpus_of(corpus, generation), generation)


def corpus_of(corpus: Sequence[Scenario], generation: int) -> tuple[Scenario, ...]:
    """The part of a corpus that was there when the generation was made."""
    return tuple(scenario for scenario in corpus if _since(scenario) <= generation)


def _since(scenario: Scenario) -> int:
    """The first generation that changes a scenario of the corpus."""
    return max(
        (int(t.removeprefix(FROM_GENERATION)) for t in scenario.tags if t.startswith(FROM_GENERATION)), default=0
    )


def draw_scenario(
    draw: Random, name: str = "random", corpus: Sequence[Scenario] = (), generation: int = GENERATION
) -> Scenario:
    """A valid scenario, new or one of the corpus changed; what check() refuses is drawn again."""
    themes = themes_of(generation)
    for _ in range(_TRIES):
        changed = bool(corpus) and draw.random() < _FROM_CORPUS
        known = draw.choice(corpus) if changed else None
        theme = pick(draw, themes) if len(themes) > 1 else next(iter(themes))
        found = mutate(draw, known, theme) if known else draw_new(draw, theme)
        found = replace(found, id=name, title="made at random", catalogue="", why="", tags=("explored",))
        if any(step.touch for step in found.steps) and next(check(found), None) is None:
            return found
    raise AssertionError(f"no valid scenario in {_TRIES} tries")


def draw_new(draw: Random, theme: Theme) -> Scenario:
    """One of the theme that was not there before; check() has the last word."""
    ground = theme.ground(draw, draw_ground(draw, theme.backings))
    scene = Scene(draw, ground, [], theme.by_l2, theme.waits)
    steps = draw_steps(scene, theme.motifs)
    steps = (*steps, *theme.closing(scene, steps))
    touches = [step.touch for step in steps if isinstance(step.touch, str) and step.touch]
    swap = _with_errors(draw, ground, touches)
    return Scenario(
        id="new", title="", guest=ground.guest, apf=ground.apf, l2=ground.l2, memory=ground.memory, swap=swap,
        pages=ground.pages, steps=steps, deadline_s=theme.deadline_s,
    )  # fmt: skip


def _with_errors(draw: Random, ground: Ground, touches: list[str]) -> Swap:
    """Sometimes the read of a page that is touched fails."""
    on_swap = ground.swap.kind is SwapKind.GATED and ground.memory.backing is not Backing.FILE
    single = [touch for touch in touches if ":" not in touch]
    if not on_swap or not single or draw.random() >= 0.05:
        return ground.swap
    return replace(ground.swap, error=(draw.choice(single),))
