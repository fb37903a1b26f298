# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions that the kernel was free to answer either way, and all the answers one after the other.

A run of the simulation asks; the answers come from a script, and behind its end each question gets its first option.
``explore`` runs again and again, so that every combination of answers comes up until a bound is reached.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Choices:
    """The answers of one run.  ``taken`` and ``options``: what was answered, of how many, in order of asking."""

    script: tuple[int, ...] = ()
    taken: list[int] = field(default_factory=list)
    options: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def ask(self, options: int, why: str) -> int:
        """Which of so many options; 0 is what is most likely.  ``why``: what is open, for people."""
        if options < 2:
            return 0
        at = len(self.taken)
        answer = min(self.script[at], options - 1) if at < len(self.script) else 0
        self.taken.append(answer)
        self.options.append(options)
        self.reasons.append(why)
        return answer


@dataclass(frozen=True, slots=True)
class Run(Generic[T]):
    """One run and the answers that it was given."""

    choices: Choices
    result: T


UNTOLD = 4
"""A run of which nobody can tell how far it is from what is wanted is taken for one that is so far."""


def explore(
    run: Callable[[Choices], T], bound: int, distance: Callable[[T], int | None] = lambda _: None
) -> Iterator[Run[T]]:
    """At most ``bound`` runs, each with other answers than all before it.

    :param distance: how far a run is from what is wanted, less is better; None: it cannot be told.  The answers of runs
        that were near are changed first, each by itself before two of them, and by turns those that have waited
        longest: what is nearest may be a dead end.  Of runs that tell nothing the last answer of the last one is
        changed, so that without ``distance`` this goes depth first.
    """
    waiting: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]
    longest: deque[tuple[int, ...]] = deque()
    done: set[tuple[int, ...]] = set()
    number, told = 0, False
    for turn in range(bound):
        script = _next(waiting, longest, done, by_age=told and turn % 3 == 0)
        if script is None:
            return
        done.add(script)
        choices = Choices(script)
        result = run(choices)
        far = distance(result)
        told = told or far is not None
        # As long as it brings nothing nearer, one change more counts as much as one step further away.
        cost = (UNTOLD if far is None else far) + (sum(map(bool, script)) if told else 0)
        yield Run(choices, result)
        for at in range(len(script), len(choices.taken)):
            for answer in range(choices.options[at] - 1, 0, -1):
                number += 1
                key = (cost, -number if far is None else number)
                changed = (*choices.taken[:at], answer)
                heapq.heappush(waiting, (*key, changed))
                longest.append(changed)


def _next(
    waiting: list[tuple[int, int, tuple[int, ...]]],
    longest: deque[tuple[int, ...]],
    done: set[tuple[int, ...]],
    *,
    by_age: bool,
) -> tuple[int, ...] | None:
    """The script that is the most promising, or the one that has waited longest; None: all are done."""
    while waiting or longest:
        if by_age and longest:
            script = longest.popleft()
        elif waiting:
            script = heapq.heappop(waiting)[2]
        else:
            script = longest.popleft()
        if script not in done:
            return script
    return None
