# SPDX-License-Identifier: GPL-2.0-or-later
"""No Ctrl-C, no SIGTERM and no SIGHUP while a process is forked.

A signal that reaches the child before its own handlers are there runs those of its parent.  They raise, so that the
child would leave the fork by an exception and go on as a second parent, tidying up what is not its own; and in the
parent an exception between the fork and the note that is made of it would leave a child that nobody ends.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from harness.run.ending import ENDING


@contextmanager
def signals_held() -> Iterator[None]:
    """These signals wait, in this thread and in what it forks, which must call let_signals_come()."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_signals_come() -> None:
    """In the child, once its own handlers are there: what has waited comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
