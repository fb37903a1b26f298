# SPDX-License-Identifier: GPL-2.0-or-later
"""How a gated source of pages is taken back, by whom ever: a device's number and its server's process id are all that
is needed."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from harness.agent.host import nbd
from harness.agent.host.kernel_files import read_text
from harness.errors import InfraFault

SERVER_NAME = "apf-gate"
"""The server's comm, by which it is known from a process that was given its number later."""
_SETTLE_SECONDS = 0.5
_GONE_SECONDS = 1.0
_SERVING = ("R", "S", "D")
"""States of a process that will answer; not stopped (T, t), not dead (Z, X)."""


def let_go(index: int, pid: int) -> None:
    """Before anything else is taken back: nobody may stay asleep on the device.

    A server whose agent is gone, or which was told to open, answers everything; one that is dead or stopped does not,
    and then the kernel ends its reads with EIO.
    """
    end = time.monotonic() + _SETTLE_SECONDS
    while nbd.owner(index) == pid:
        if not _serves(pid) or time.monotonic() > end:
            nbd.disconnect(index)
            return
        if not nbd.in_flight(index):
            return
        time.sleep(0.01)


def take_back(index: int, pid: int) -> None:
    """Disconnect the device, if it is still that server's, and see the server off.

    :raise InfraFault: the server stays.
    """
    if nbd.owner(index) == pid:
        nbd.disconnect(index)
    end = time.monotonic() + _GONE_SECONDS
    while _is_server(pid):
        # One that serves ends by itself, because its connection is over; one that is stopped does not.
        if not _serves(pid) or time.monotonic() > end:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end + _GONE_SECONDS:
            raise InfraFault(f"the gate's server {pid} stays")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.005)


def end_server(pid: int) -> None:
    """Kill a server whose end releases everything, stopped or not.

    :raise InfraFault: it stays.
    """
    end = time.monotonic() + _GONE_SECONDS
    while _is_server(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > end:
            raise InfraFault(f"the server {pid} stays")
        time.sleep(0.005)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _is_server(pid: int) -> bool:
    """A server that lives; one that is dead and not reaped by its parent is none."""
    return _comm(pid) == SERVER_NAME and _state(pid) not in ("", "Z", "X")


def _serves(pid: int) -> bool:
    return _comm(pid) == SERVER_NAME and _state(pid) in _SERVING


def _state(pid: int) -> str:
    try:
        return read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _comm(pid: int) -> str:
    try:
        return read_text(f"/proc/{pid}/comm").strip()
    except OSError:
        return ""
