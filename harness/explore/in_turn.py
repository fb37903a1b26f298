# SPDX-License-Identifier: GPL-2.0-or-later
"""What generation 7 has more: vCPUs that touch pages one behind the other, so that the program decides their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from harness.contract.plan import Swap, SwapKind
from harness.explore.ground import Ground
from harness.explore.motifs import Scene
from harness.scenario.schema import Step


def several(draw: Random, ground: Ground) -> Ground:
    """A guest of two vCPUs at least; often on a device that reads at once, where vCPUs that are not in turn race."""
    guest, swap = ground.guest, ground.swap
    if draw.random() < 0.35:
        swap = Swap(kind=SwapKind.ZRAM, page_cluster=swap.page_cluster)
    return replace(ground, guest=replace(guest, vcpus=max(guest.vcpus, draw.choice((2, 2, 3, 4)))), swap=swap)


def in_turn(s: Scene) -> Iterator[Step]:
    """A vCPU touches a page, or some, and the next one is after it: on the same page, a neighbour, or another."""
    draw, vcpus = s.draw, s.ground.guest.vcpus
    vcpu = s.vcpu()
    for _ in range(draw.randint(1, 3) if vcpus > 1 else 0):
        step = replace(s.touch(), vcpu=vcpu, name=f"turn {len(s.touched)}")
        yield step
        vcpu = (vcpu + draw.randrange(1, vcpus)) % vcpus
        yield Step(after=step.name, vcpu=vcpu)
        if draw.random() < 0.5:
            yield replace(s.how(), vcpu=vcpu, touch=step.touch)
    yield replace(s.touch(), vcpu=vcpu)
