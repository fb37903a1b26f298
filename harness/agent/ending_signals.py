# SPDX-License-Identifier: GPL-2.0-or-later
"""The signals that end an agent.  Undoing takes seconds or minutes, and they come in groups: from a terminal, from a
session that is closed, from whoever reserved the machine.  So they are heard until all is undone, and the first counts.

Heard and not ignored: a program that is started meanwhile would inherit that.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def heard(tell: Callable[[str], None]) -> Iterator[None]:
    """Call ``tell`` with words for each of them, in the main thread, and do nothing else; afterwards they do what they
    did before."""

    def hear(number: int, _frame: FrameType | None) -> None:
        tell(f"terminated by {signal.Signals(number).name}")

    before = {number: signal.signal(number, hear) for number in ENDING}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def unheeded(_why: str) -> None:
    """For heard(): what is done goes on to its end."""
