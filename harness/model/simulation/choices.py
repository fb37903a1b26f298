# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions that the kernel was free to answer either way, and all the answers one after the other.

A run of the simulation asks; the answers come from a script, and behind its end each question gets its first option.
``explore`` runs again and again, depth first, so that every combination of answers comes up until a bound is reached.
"""

from __future__ import annotations

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

    def next_script(self) -> tuple[int, ...] | None:
        """The answers of the run after this one, the last open question first; None: all were given."""
        for at in range(len(self.taken) - 1, -1, -1):
            if self.taken[at] + 1 < self.options[at]:
                return (*self.taken[:at], self.taken[at] + 1)
        return None


@dataclass(frozen=True, slots=True)
class Run(Generic[T]):
    """One run and the answers that it was given."""

    choices: Choices
    result: T


def explore(run: Callable[[Choices], T], bound: int) -> Iterator[Run[T]]:
    """At most ``bound`` runs, each with other answers than all before it."""
    script: tuple[int, ...] | None = ()
    for _ in range(bound):
        choices = Choices(script or ())
        yield Run(choices, run(choices))
        script = choices.next_script()
        if script is None:
            return
