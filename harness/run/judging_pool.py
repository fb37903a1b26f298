# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that judge many captures at once, and end with whoever asked them."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context

from harness.errors import InfraFault
from harness.run.held_signals import let_signals_come, signals_held

_FORK = get_context("fork")


@contextmanager
def judging_pool() -> Iterator[ProcessPoolExecutor]:
    """One process for each processor.

    When the block is left by an exception, as by Ctrl-C or SIGTERM, none of them is waited for: a capture may take
    minutes.  They die with this process, too, however it ends.

    :raise InfraFault: one of them was killed.
    """
    others = set(active_children())
    with ProcessPoolExecutor(mp_context=_FORK, initializer=_end_with, initargs=(os.getpid(),)) as pool:
        try:
            with signals_held():
                pool.submit(int)  # the first task starts all processes where they are forked
            yield pool
        except BaseException as exc:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(active_children()) - others:
                worker.kill()
            if isinstance(exc, BrokenProcessPool):
                raise InfraFault("a process that judges was killed", hint="was the machine out of memory?") from exc
            raise


def _end_with(parent: int) -> None:
    """Die with the thread that has forked this process, and leave to it what reaches the whole group: Ctrl-C, and the
    end of the terminal."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    let_signals_come()
