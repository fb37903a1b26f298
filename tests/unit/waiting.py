# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for what another process or thread does: for the state itself, and never for so many seconds.

A machine may be five times slower than this one, and any one process may stand still for seconds at any moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

HANG_S = 600.0
"""Only what hangs takes so long."""


def wait_until(done: Callable[[], bool], what: str) -> None:
    """Ask ``done`` until it says yes; an error that names ``what`` if it hangs."""
    give_up = time.monotonic() + HANG_S
    while not done():
        assert time.monotonic() < give_up, f"{what}: not within {HANG_S:g} s"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """No such process, or one that only its parent has not noticed yet."""
    return state_of(pid) in ("", "Z")


def state_of(pid: int) -> str:
    """R, S, D, T, Z and so on; empty: there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
