# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario reaches in the model, as words: the branches that decide its items, and which event follows which.

A scenario that reaches what none before it did is worth keeping: changes of it are likely to reach more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

from harness.model.simulation.situation import Prediction

_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")


def reach(prediction: Prediction) -> frozenset[str]:
    """All of it."""
    return frozenset((*_branches(prediction), *_pairs(prediction), *_totals(prediction)))


def _branches(prediction: Prediction) -> Iterator[str]:
    for item in prediction.items:
        yield f"{item.outcome} by {_NUMBERS.sub('N', item.why)}"


def _pairs(prediction: Prediction) -> Iterator[str]:
    """What each vCPU does next, and what another thread does in between."""
    for before, after in pairwise(prediction.events):
        other = "" if before.vcpu == after.vcpu else "elsewhere "
        yield f"{before.kind.name} then {other}{after.kind.name}"
    for vcpu in {event.vcpu for event in prediction.events}:
        own = [event.kind.name for event in prediction.events if event.vcpu == vcpu]
        yield from (f"{before} then {after}" for before, after in pairwise(own))


def _totals(prediction: Prediction) -> Iterator[str]:
    for name, count in prediction.totals.items():
        if count.low:
            yield f"{name} {'once' if count.high == 1 else 'more than once'}"


def smallest_cover(reached: Mapping[str, frozenset[str]], most: int) -> Iterator[str]:
    """Names, each adding as much as it can to what those before it reach, at most ``most``."""
    missing = frozenset[str]().union(*reached.values())
    left = dict(reached)
    for _ in range(min(most, len(left))):
        name = max(left, key=lambda n: (len(left[n] & missing), n))
        if not left[name] & missing:
            return
        yield name
        missing -= left.pop(name)
