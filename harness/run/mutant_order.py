# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenarios are tried on a systematic mutant, in which order: from what they reach, and from what was seen of
them so far.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.run.mutant_trials import Mutant, Trial, kind_of

_QUICK = 1.6
"""So many times as long as the quickest of the scenarios that reach a point is still quick."""
_COST_S = 3.0
"""Seconds that a trial takes besides what its scenario does."""
_PRIOR = 2.0
"""How many trials on one function weigh as much as what is known of a scenario on all of them."""


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


class Experience:
    """How often a scenario has named a fault that it reached, of a function and at all."""

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._tried: Counter[tuple[str, str]] = Counter()
        self._named: Counter[tuple[str, str]] = Counter()
        for trial in trials:
            if trial.mutant is None:
                continue
            for key in ((trial.scenario, trial.mutant.imitates), (trial.scenario, "")):
                self._tried[key] += 1
                self._named[key] += trial.named

    def chance(self, scenario: str, function: str) -> float:
        """That it names the next fault of this function, from 0 to 1: 0.5 where nothing is known."""
        at_all, here = (scenario, ""), (scenario, function)
        prior = (self._named[at_all] + 1) / (self._tried[at_all] + 2)
        return (self._named[here] + _PRIOR * prior) / (self._tried[here] + _PRIOR)


def for_another_catch(mutant: Mutant, caught_by: Iterable[str], reach: Reach, known: Experience) -> Iterator[str]:
    """Scenarios that reach a point and are of another kind (kind_of) than those that have caught it, one of each kind
    before the second of any: those first that promise most catches for the time they take."""
    done = {kind_of(s) for s in caught_by}
    left = [s for s in reach.able(mutant) if kind_of(s) not in done]

    def worth(scenario: str) -> float:
        return known.chance(scenario, mutant.imitates) / (reach.seconds[scenario] + _COST_S)

    left.sort(key=worth, reverse=True)
    kinds: Counter[str] = Counter()
    turns = []
    for scenario in left:
        turns.append((kinds[kind_of(scenario)], scenario))
        kinds[kind_of(scenario)] += 1
    turns.sort(key=lambda turn: turn[0])
    yield from (scenario for _, scenario in turns)
