# SPDX-License-Identifier: GPL-2.0-or-later
"""A system call that may never come back, in a process of its own, which is killed then, or left where it is."""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable

_KILLED_SECONDS = 2.0
"""How long a process that was killed may take to end; one that sleeps uninterruptibly never does, and is left."""


def within(seconds: float, call: Callable[[], None], what: str) -> None:
    """Make a call in a child process, such as swapoff(2), which a fatal signal ends (mm/swapfile.c:try_to_unuse).

    :param what: the call, for people.
    :raise OSError: what the call raised; TimeoutError: it was not through after ``seconds``.
    """
    child = os.fork()
    if child == 0:
        code = errno.EIO
        try:
            call()
            code = 0
        except OSError as exc:
            code = exc.errno or errno.EIO
        finally:
            os._exit(code)
    fd = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        ended = through = bool(poll.poll(1000 * seconds))
        if not through:
            os.kill(child, signal.SIGKILL)
            ended = bool(poll.poll(1000 * _KILLED_SECONDS))
    finally:
        os.close(fd)
    number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if ended else 0
    if not through:
        raise TimeoutError(errno.ETIMEDOUT, f"{what} was not through after {seconds:g} s")
    if number > 0:
        raise OSError(number, f"{what}: {os.strerror(number)}")
