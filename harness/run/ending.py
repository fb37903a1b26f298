# SPDX-License-Identifier: GPL-2.0-or-later
"""Ctrl-C, SIGTERM and the end of the terminal (SIGHUP): the first of them ends what goes on, in order.

It raises Interrupted in the main thread, and on its way up hosts are ended, changes to machines are taken back, and
what is known is written.  That takes seconds or minutes, and these signals come in groups: from an impatient person,
from a terminal that is closed, from make.  While the first is on its way, more of them do nothing.

It is on its way as long as its exception lives, which costs nobody a note: when it has been dealt with, or was
swallowed (Python drops what a handler raises inside a destructor), the next signal raises again.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MORE = b"apf: this ends in order, which may take a while (Ctrl-\\ ends it at once)\n"


class Interrupted(KeyboardInterrupt):
    """What the signals raise.  A class of our own: those of Python cannot be referred to weakly."""


class Ending:
    """The handler of these signals, in one process.

    :param told: of the file to which a second signal is answered; None: it is not.
    """

    def __init__(self, told: int | None = None) -> None:
        self._told = told
        self._last: weakref.ref[Interrupted] | None = None
        self._held = 0
        self._waits = 0

    def handle(self, number: int, _frame: FrameType | None = None) -> None:
        """:raise Interrupted: it is the first."""
        if self._held:
            self._waits = number
        elif not self._is_on_its_way():
            raise self._raised(number)
        elif self._told is not None:
            with contextlib.suppress(OSError):
                os.write(self._told, _MORE)

    def _is_on_its_way(self) -> bool:
        if self._last is None or self._last() is None:
            return False
        gc.collect()  # one that has been dealt with may be left in a circle: its traceback's frames know it
        return self._last() is not None

    def _raised(self, number: int) -> Interrupted:
        # Not a local variable of the frame that raises it: its traceback would hold that, and itself.
        fresh = Interrupted(signal.Signals(number).name)
        self._last, self._waits = weakref.ref(fresh), 0
        return fresh

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is done here is done whole: a signal that comes meanwhile raises at the end.  For moments only.

        :raise Interrupted: one came.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._waits and not self._held:
                number, self._waits = self._waits, 0
                self.handle(number)


OURS = Ending(told=2)
"""That of this process."""


def install(ending: Ending = OURS) -> None:
    """From now on.  What was ignored when we were started stays so: Ctrl-C by a shell without job control, for what it
    puts into the background, and the end of the terminal by nohup(1)."""
    for number in ENDING:
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, ending.handle)


@contextmanager
def saved_at_the_end(save: Callable[[bool], None]) -> Iterator[None]:
    """However this ends, what is known by then is saved, once.  An interruption goes no further: the result tells it.

    :param save: its argument: whether it was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:
        save(True)  # here, where the exception lives: another signal must not break that off
    except BaseException:
        save(False)
        raise
    else:
        save(False)


def ignore() -> None:
    """All has been done and said, and the exit code is known."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
