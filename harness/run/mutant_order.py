# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenarios are tried on a systematic mutant, in which order: from what they reach.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.run.mutant_trials import Mutant, kind_of

_QUICK = 1.6
"""So many times as long as the quickest of the scenarios that reach a point is still quick."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What the unmutated kernel was seen to do under each scenario.

    :ivar points: scenario -> numbers of the points that it comes by.
    :ivar seconds: scenario -> how long it took.
    """

    points: Mapping[str, frozenset[int]]
    seconds: Mapping[str, float]

    def able(self, mutant: Mutant) -> list[str]:
        """The scenarios that come by a mutant's point, the quickest first."""
        return sorted((s for s, points in self.points.items() if mutant.number in points), key=self._order)

    def alike(self, one: str, other: str) -> float:
        """Points that both come by, of those that either does, from 0 to 1."""
        a, b = (self.points.get(each, frozenset()) for each in (one, other))
        return len(a & b) / (len(a | b) or 1)

    def _order(self, scenario: str) -> tuple[float, str]:
        return self.seconds[scenario], scenario


def for_a_first_catch(mutant: Mutant, mutants: Sequence[Mutant], reach: Reach) -> Iterator[str]:
    """Scenarios that reach a point: of the quick ones the one that comes by most points of its function (where that is
    alike: by most points at all), then of all of them; then always the one that comes by most points that none before
    came by, because what differs most is likeliest to notice; the quickest where all that is alike."""
    able = reach.able(mutant)
    of_function = frozenset(m.number for m in mutants if m.imitates == mutant.imitates)
    quick = [s for s in able if reach.seconds[s] <= _QUICK * reach.seconds[able[0]]]
    seen: frozenset[int] = frozenset()

    def worth(scenario: str) -> tuple[int, int]:
        return len(reach.points[scenario] & of_function), len(reach.points[scenario])

    for among in (quick, able):
        left = [s for s in among if s in able]
        if left:
            best = max(left, key=worth)
            able.remove(best)
            seen |= reach.points[best]
            yield best
    while able:
        best = max(able, key=lambda s: len(reach.points[s] - seen))
        able.remove(best)
        seen |= reach.points[best]
        yield best


def for_another_catch(mutant: Mutant, caught_by: Sequence[str], reach: Reach) -> Iterator[str]:
    """Scenarios that reach a point and are of another kind (kind_of) than those that have caught it, one of each kind
    before the second of any: those first that come by most of the points that one of these comes by, and by fewest
    others.  What does nearly the same notices the same; on points-6.1 that ordered 80 % of the pairs rightly of which
    one had noticed a mutant and the other had not, where what a scenario had caught before, for the time it takes,
    ordered 43 %.
    """
    done = {kind_of(s) for s in caught_by}
    left = [s for s in reach.able(mutant) if kind_of(s) not in done]
    left.sort(key=lambda s: max((reach.alike(s, c) for c in caught_by), default=0.0), reverse=True)
    kinds: Counter[str] = Counter()
    turns = []
    for scenario in left:
        turns.append((kinds[kind_of(scenario)], scenario))
        kinds[kind_of(scenario)] += 1
    turns.sort(key=lambda turn: turn[0])
    yield from (scenario for _, scenario in turns)
