# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions that the kernel was free to answer either way, and the answers that lead to what was seen.

A run of the simulation asks; it is given answers to some of its questions, and the first option to all others.
``explore`` runs again and again, each time with one answer changed of a run before, until a bound is reached.
"""

from __future__ import annotations

import heapq
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
Question = tuple[str, int]
"""What is asked, and how often the same was asked before in this run."""


@dataclass(slots=True)
class Choices:
    """The questions of one run, in order of asking.

    :ivar answers: what is to be answered; 0 to all that is not in it.
    :ivar asked: the questions; ``taken``: what was answered; ``options``: of how many; ``pages``: about which guest
        page it was asked, -1 for none; ``moments``: of a question about a time, the time that each answer stands for.
    """

    answers: Mapping[Question, int] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    options: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    moments: list[Sequence[int]] = field(default_factory=list)
    _times: Counter[str] = field(default_factory=Counter)

    def ask(self, options: int, why: str, page: int = -1, moments: Sequence[int] = ()) -> int:
        """Which of so many options; 0 is what is most likely.

        :param why: what is open, for people.
        :param page: the number of the guest page that is asked about.
        :param moments: the time of each answer; empty: they are no times.
        """
        if options < 2:
            return 0
        question = (why, self._times[why])
        self._times[why] += 1
        answer = min(self.answers.get(question, 0), options - 1)
        self.asked.append(question)
        self.taken.append(answer)
        self.options.append(options)
        self.pages.append(page)
        self.moments.append(moments)
        return answer

    def maybe(self, why: str, page: int, *, likely: bool = False) -> bool:
        """Whether it was so; ``likely``: what is tried first."""
        return (self.ask(2, why, page) == 0) is likely

    def moment(self, moments: Sequence[int], why: str, page: int) -> int:
        """Which of these times; the first is what is most likely."""
        return moments[self.ask(len(moments), why, page, moments)]

    @property
    def reasons(self) -> list[str]:
        """What was open, for people."""
        return [why for why, _ in self.asked]

    @property
    def chosen(self) -> dict[Question, int]:
        """The answers that are not the first option: what makes this run another than all others."""
        return {question: answer for question, answer in zip(self.asked, self.taken, strict=True) if answer}


@dataclass(frozen=True, slots=True)
class Run(Generic[T]):
    """One run and the answers that it was given."""

    choices: Choices
    result: T


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a run is from what is wanted.

    :ivar steps: less is better; None: the run did not come to its end.
    :ivar pages: the numbers of the guest pages that show it.
    :ivar reached: how far a run came that did not come to its end; more is better.
    :ivar beyond: how far it came nevertheless.
    :ivar asked: how many questions had been asked by then; -1: all.
    """

    steps: int | None
    pages: frozenset[int] = frozenset()
    reached: int = 0
    beyond: int = 0
    asked: int = -1


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a search ends.

    :ivar runs: so many are made, ...
    :ivar vain: ... or until so many that came to their end have brought nothing nearer.
    :ivar singles: of the first run each answer is changed by itself all the same, up to so many, unless the matter is
        settled: an order that is one choice away is found, whatever the distances tell.
    :ivar deep: so many more are made at last, unless the matter is settled: of what several threads did at once the
        distances tell little, and nothing but an order that was not tried is held against the kernel then.
    """

    runs: int
    vain: int = sys.maxsize
    singles: int = 0
    deep: int = 0


_Key = tuple[int, int, bool, int, int, int]
_Change = tuple[dict[Question, int], Question, int]


def _turns(moments: Sequence[int], reached: int, taken: int) -> list[int]:
    """Of each answer to a question about a time, how many come before it.

    A run that was given up behind the moment of its answer ``taken`` wants a later one: first the last of all, then
    those behind the place where it was given up, nearest first.  Else the answer was too late, and the right one is
    just before that place.
    """
    if not moments:
        return []
    early, last = moments[taken] <= reached, max(moments)
    order = sorted(
        range(len(moments)),
        key=lambda n: (early and moments[n] != last, (moments[n] < reached) is early, abs(moments[n] - reached)),
    )
    return [turn for _, turn in sorted(zip(order, range(len(order)), strict=True))]


@dataclass(slots=True)
class _Waiting:
    """Runs that are still to be made: a run before, and which of its questions is answered in another way.

    ``near``: those of runs that came to their end, by how near that was; ``far``: those of the others, by how far they
    came; ``longest``: all; ``singles``: those of the first run, one other answer to each question before a second.
    """

    near: list[tuple[_Key, _Change]] = field(default_factory=list)
    far: list[tuple[_Key, _Change]] = field(default_factory=list)
    longest: deque[_Change] = field(default_factory=deque)
    singles: deque[_Change] | None = None
    done: set[frozenset[tuple[Question, int]]] = field(default_factory=lambda: {frozenset()})
    _number: int = 0

    def add(self, choices: Choices, distance: Distance) -> None:
        """Every answer of a run changed, each by itself."""
        chosen = choices.chosen
        if self.singles is None:
            most = max(choices.options, default=0)
            asked = list(zip(choices.asked, choices.options, strict=True))
            self.singles = deque((chosen, q, answer) for answer in range(1, most) for q, n in asked if answer < n)
        for number, (question, taken, options, page, moments) in enumerate(
            zip(choices.asked, choices.taken, choices.options, choices.pages, choices.moments, strict=True)
        ):
            elsewhere = page >= 0 and page not in distance.pages if distance.asked < 0 else number >= distance.asked
            turns = _turns(moments, distance.reached, taken)
            for answer in range(options - 1, -1, -1):
                if answer == taken:
                    continue
                self._number += 1
                change = (chosen, question, answer)
                self.longest.append(change)
                if distance.steps is None:  # the last question first
                    turn = turns[answer] if turns else 0
                    key = (-distance.reached, -distance.beyond, elsewhere, len(chosen), turn, -self._number)
                    heapq.heappush(self.far, (key, change))
                else:
                    # As long as it brings nothing nearer, one change more counts as much as one step further away.
                    # One other answer to each question comes before a second to any, but for what is no page's matter.
                    rank = options - answer if page >= 0 else 1
                    key = (2 * distance.steps + len(chosen), 0, elsewhere, rank, self._number, 0)
                    heapq.heappush(self.near, (key, change))

    def next(self, turn: int) -> dict[Question, int] | None:
        """Answers to try: by turns after what was near, after what came far, and what has waited longest; None: all
        are done."""
        while self.near or self.far or self.longest:
            if self.longest and ((self.near and turn % 3 == 0) or not (self.near or self.far)):
                change = self.longest.popleft()
            elif self.near and (turn % 3 == 1 or not self.far):
                change = heapq.heappop(self.near)[1]
            else:
                change = heapq.heappop(self.far)[1]
            if (answers := self._new(change)) is not None:
                return answers
        return None

    def single(self) -> dict[Question, int] | None:
        """Answers to try of which one is not the first run's; None: all are done."""
        while self.singles:
            if (answers := self._new(self.singles.popleft())) is not None:
                return answers
        return None

    def _new(self, change: _Change) -> dict[Question, int] | None:
        """The answers of a change; None: they were tried."""
        before, question, answer = change
        answers = {q: a for q, a in (before | {question: answer}).items() if a}
        if (key := frozenset(answers.items())) in self.done:
            return None
        self.done.add(key)
        return answers


def explore(
    run: Callable[[Choices], T],
    bounds: Bounds,
    distance: Callable[[T], Distance] = lambda _: Distance(None),
    settled: Callable[[], bool] = lambda: False,
) -> Iterator[Run[T]]:
    """Runs within ``bounds``, each with other answers than all before it.

    :param distance: how far a run is from what is wanted.  By turns one answer is changed of a run that was near, of
        one that came far before it was given up, and of the one that has waited longest: what is nearest may be a dead
        end.  Answers about the pages that show the distance are changed first.
    :param settled: whether something is wrong whatever the answers, so that others would only tell better what.
    """
    waiting = _Waiting()
    seen: set[frozenset[tuple[Question, int]]] = set()
    answers: dict[Question, int] | None = {}
    turn = in_vain = singles = deep = 0
    open_: bool | None = None  # not settled; None: not asked yet
    nearest, until = sys.maxsize, bounds.runs
    while answers is not None:
        turn += 1
        choices = Choices(answers)
        result = run(choices)
        if (key := frozenset(choices.chosen.items())) not in seen:  # what was to be changed may not be asked
            seen.add(key)
            far = distance(result)
            yield Run(choices, result)
            waiting.add(choices, far)
            in_vain += far.steps is not None
            if far.steps is not None and far.steps < nearest:
                nearest, in_vain = far.steps, 0
                if singles:  # from here on it is worth to go on
                    until = turn + min(bounds.vain, bounds.runs)
        answers = None
        if turn < until and in_vain < bounds.vain:
            answers = waiting.next(turn)
            continue
        open_ = not settled() if open_ is None else open_
        if open_ and singles < bounds.singles:
            singles += 1
            answers = waiting.single()
        if open_ and answers is None and deep < bounds.deep:
            deep += 1
            answers = waiting.next(turn)
