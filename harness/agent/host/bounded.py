# SPDX-License-Identifier: GPL-2.0-or-later
"""A system call that may never come back, in a process of its own, which is killed then."""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable


def within(seconds: float, call: Callable[[], None], what: str) -> None:
    """Make a call that a fatal signal ends, such as swapoff(2) (mm/swapfile.c:try_to_unuse), in a child process.

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
        through = bool(poll.poll(1000 * seconds))
    finally:
        os.close(fd)
    if not through:
        os.kill(child, signal.SIGKILL)
    number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not through:
        raise TimeoutError(errno.ETIMEDOUT, f"{what} was not through after {seconds:g} s")
    if number > 0:
        raise OSError(number, f"{what}: {os.strerror(number)}")
