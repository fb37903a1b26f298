# SPDX-License-Identifier: GPL-2.0-or-later
"""What the gate has been told, in the order in which it happened, which is not that in which it is told.

The trace is read a little later than it is written, and an event of QEMU's a little later than that: on a busy machine
a vCPU waits for the first page of its new life before anybody has said that the machine was reset.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

from harness.contract.gate import Seen

_KEPT = 20_000
"""So many of the last words are kept: what comes later than so many others finds its place before them."""


@dataclass(frozen=True, slots=True)
class _Word:
    at: float
    method: Callable[..., None]
    args: tuple[int, ...]
    more: dict[str, bool]

    def tell(self, seen: Seen) -> None:
        self.method(seen, *self.args, **self.more)


@dataclass(slots=True)
class InOrder:
    """``seen``: what follows from all of it."""

    seen: Seen = field(default_factory=Seen)
    _before: Seen = field(init=False)  # what followed from the words that are not kept
    _words: list[_Word] = field(default_factory=list)
    _late: float = 0.0  # the newest time of a word that was told late

    def __post_init__(self) -> None:
        self._before = deepcopy(self.seen)

    def tell(self, at: float, method: Callable[..., None], *args: int, **more: bool) -> None:
        """A method of Seen, and when it happened: now, or before a word that was told late."""
        word = _Word(at, method, args, more)
        if at < self._late:
            self._insert(word)
            return
        self._words.append(word)
        word.tell(self.seen)
        if len(self._words) > 2 * _KEPT:
            for old in self._words[:_KEPT]:
                old.tell(self._before)
            del self._words[:_KEPT]

    def tell_late(self, at: float, method: Callable[..., None]) -> None:
        """... of which others are told much sooner than of this: they may have told what came behind it."""
        self._late = max(self._late, at)
        self._insert(_Word(at, method, (), {}))

    def _insert(self, word: _Word) -> None:
        behind = [each for each in self._words if each.at > word.at]
        if not behind:
            self._words.append(word)
            word.tell(self.seen)
            return
        self._words = [*(each for each in self._words if each.at <= word.at), word, *behind]
        met, self.seen = self.seen.met, deepcopy(self._before)
        for each in self._words:
            each.tell(self.seen)
        self.seen.met = self.seen.met or met  # a rule that was met remains so

    @property
    def newest(self) -> float:
        """When the last word was spoken."""
        return self._words[-1].at if self._words else 0.0
