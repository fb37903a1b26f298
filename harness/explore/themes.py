# SPDX-License-Identifier: GPL-2.0-or-later
"""What random scenarios are about: each theme is a ground and the motifs that are likely on it.

A generation is a set of themes with weights.  What a generation gives for a seed must stay what it is, so that a new
theme or motif, or another weight, is another generation's; what an older one has is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from harness.contract.words import Backing
from harness.errors import UsageError
from harness.explore.ground import ALONE, BACKINGS, MOSTLY_FILES, Ground, at_work, crowded, holding, nested
from harness.explore.in_turn import in_turn, several
from harness.explore.kept_off import (
    delivered,
    in_sockets,
    kept_off,
    nested_elsewhere,
    nmi_for_all,
    reclaimed,
    state_read,
)
from harness.explore.motifs import MOTIFS, Motif, Scene
from harness.explore.outstanding import (
    crowd,
    fresh,
    let_go,
    own_fault,
    registers_meanwhile,
    registers_while_held,
    start_anew,
)
from harness.scenario.schema import Step


@dataclass(frozen=True, slots=True, eq=False)
class Theme:
    """A neighbourhood in which scenarios are made.

    :ivar motifs: what a program is made of, each as likely as its weight.
    :ivar ground: makes the ground that was drawn one of the theme.
    :ivar backings: weights of what the memory is backed by.
    :ivar by_l2: the share of touches that an L2 makes.
    :ivar deadline_s: seconds for the guest's program.
    :ivar waits: Scene.waits.
    :ivar closing: what a program of these steps ends with.
    """

    name: str
    motifs: Mapping[Motif, int]
    ground: Callable[[Random, Ground], Ground] = lambda _, ground: ground
    backings: Mapping[tuple[Backing, bool], int] = field(default_factory=lambda: BACKINGS)
    by_l2: float = 0.0
    deadline_s: int = 8
    waits: int = 40
    closing: Callable[[Scene, Sequence[Step]], Iterator[Step]] = lambda _scene, _steps: iter(())


_MOTIFS_4 = {**MOTIFS, own_fault: 2, registers_meanwhile: 4, start_anew: 2}
_MOTIFS_6 = {**_MOTIFS_4, kept_off: 10, delivered: 8, state_read: 4, nmi_for_all: 3, reclaimed: 5}
_NESTED_6 = Theme(
    "nested",
    {**_MOTIFS_6, own_fault: 10, fresh: 50, nmi_for_all: 0},
    lambda draw, ground: nested_elsewhere(draw, at_work(draw, ground)),
    ALONE,
    by_l2=0.6,
    deadline_s=15,
)
_CROWDED_6 = Theme(
    "crowded",
    {**_MOTIFS_6, crowd: 120},
    lambda draw, ground: crowded(draw, at_work(draw, ground)),
    ALONE,
    deadline_s=30,
    waits=10,
    closing=let_go,
)
_REGISTERS_6 = Theme(
    "registers",
    {**MOTIFS, registers_while_held: 80, kept_off: 20},
    lambda draw, ground: holding(draw, in_sockets(draw, at_work(draw, ground))),
    ALONE,
    waits=8,
    closing=let_go,
)
_KEPT_OFF_6 = Theme(
    "kept off",
    {**MOTIFS, kept_off: 90, delivered: 60, state_read: 10, nmi_for_all: 10, reclaimed: 20},
    lambda draw, ground: in_sockets(draw, at_work(draw, ground)),
    ALONE,
    deadline_s=15,
    waits=15,
)
_GENERATIONS: dict[int, dict[Theme, int]] = {
    3: {Theme("plain", MOTIFS): 1},
    4: {
        Theme("plain", _MOTIFS_4): 45,
        Theme("nested", {**_MOTIFS_4, own_fault: 10}, nested, MOSTLY_FILES, by_l2=0.6, deadline_s=15): 20,
        Theme("crowded", {**_MOTIFS_4, crowd: 100}, crowded, ALONE, deadline_s=30): 15,
        Theme("registers", {**_MOTIFS_4, registers_meanwhile: 60}, holding, MOSTLY_FILES): 20,
    },
    5: {
        Theme("plain", _MOTIFS_4): 30,
        Theme(
            "nested",
            {**_MOTIFS_4, own_fault: 10, fresh: 50},
            lambda draw, ground: nested(draw, at_work(draw, ground)),
            ALONE,
            by_l2=0.6,
            deadline_s=15,
        ): 30,
        Theme(
            "crowded",
            {**_MOTIFS_4, crowd: 120},
            lambda draw, ground: crowded(draw, at_work(draw, ground)),
            ALONE,
            deadline_s=30,
            waits=10,
            closing=let_go,
        ): 16,
        Theme(
            "registers",
            {**MOTIFS, registers_while_held: 80},
            lambda draw, ground: holding(draw, at_work(draw, ground)),
            ALONE,
            waits=8,
            closing=let_go,
        ): 24,
    },
    6: {Theme("plain", _MOTIFS_6, in_sockets): 24, _NESTED_6: 24, _CROWDED_6: 10, _REGISTERS_6: 16, _KEPT_OFF_6: 26},
    7: {
        Theme("plain", {**_MOTIFS_6, in_turn: 6}, in_sockets): 20,
        _NESTED_6: 18,
        _CROWDED_6: 8,
        _REGISTERS_6: 12,
        _KEPT_OFF_6: 20,
        Theme(
            "in turn",
            {**MOTIFS, in_turn: 120, reclaimed: 5},
            lambda draw, ground: in_sockets(draw, several(draw, ground)),
            deadline_s=15,
            waits=50,
        ): 22,
    },
}


def themes_of(generation: int) -> Mapping[Theme, int]:
    """The themes of a generation, each with its weight.

    :raise UsageError: nothing is known of this generation.
    """
    if generation not in _GENERATIONS:
        raise UsageError(f"generation {generation} is none of {', '.join(map(str, sorted(_GENERATIONS)))}")
    return _GENERATIONS[generation]
