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
    number = reap(child, seconds)
    if number is None:
        os.kill(child, signal.SIGKILL)
        reap(child, _KILLED_SECONDS)
        raise TimeoutError(errno.ETIMEDOUT, f"{what} was not through after {seconds:g} s")
    if number > 0:
        raise OSError(number, f"{what}: {os.strerror(number)}")


def reap(child: int, seconds: float) -> int | None:
    """Wait so long for the end of a child of ours; its exit code, as of subprocess, or None: it has not ended.

    :raise ChildProcessError: it was reaped before.  :raise ProcessLookupError: and it is gone.
    """
    fd = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(1000 * seconds):
            return None
    finally:
        os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
