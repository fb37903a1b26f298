# SPDX-License-Identifier: GPL-2.0-or-later
"""What a server serves pages to, as its loop sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import ClassVar

from harness.agent.gate.keeper import Answer, Keeper


class PageSource(ABC):
    """``ends_with_agent``: when the agent is gone nobody waits for a word, and the server's end releases everything."""

    ends_with_agent: ClassVar[bool] = False

    @abstractmethod
    def fileno(self) -> int:
        """What is polled."""

    @abstractmethod
    def take(self, keeper: Keeper, look: Callable[[], None]) -> bool:
        """Everything that is asked for, told to the keeper; False: it is over.

        :param look: reads the trace; what led to a request was traced before it came.
        """

    def find(self, words: Collection[int]) -> dict[int, int]:
        """Where pages that begin with these 8 bytes (little-endian) were written to last, in bytes; those not written
        here are not in it."""
        return {}

    @abstractmethod
    def catch_up(self, keeper: Keeper) -> None:
        """Tell the keeper what was asked for before what the trace says by now, where that is the order."""

    @abstractmethod
    def answer(self, answer: Answer) -> None:
        """End what was asked for."""
