# SPDX-License-Identifier: GPL-2.0-or-later
"""madvise(2) inside another process, for what process_madvise refuses.

MADV_RANDOM, MADV_SEQUENTIAL and MADV_NOHUGEPAGE are (mm/madvise.c:process_madvise_behavior_valid).
"""

from __future__ import annotations

import os

from harness.agent.pages.remote_call import call, call_apart
from harness.errors import InfraFault

_SYS_MADVISE = 28


def madvise(pid: int, address: int, length: int, advice: int) -> None:
    """madvise(address, length, advice) executed by process ``pid``.

    :raise InfraFault: it could not be traced, or the call failed.
    """
    _check(call(pid, _SYS_MADVISE, address, length, advice), pid, address, length, advice)


def madvise_apart(pid: int, address: int, length: int, advice: int) -> None:
    """The same from a process of its own (remote_call.call_apart). :raise InfraFault: as madvise."""
    _check(call_apart(pid, _SYS_MADVISE, address, length, advice), pid, address, length, advice)


def _check(result: int, pid: int, address: int, length: int, advice: int) -> None:
    if result:
        raise InfraFault(f"madvise({address:#x}, {length}, {advice}) in process {pid}: {os.strerror(-result)}")
