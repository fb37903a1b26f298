# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules that the agent's parts load when they need them, and how they are unloaded again."""

from __future__ import annotations

import errno
import os
import subprocess

from harness.agent.host.kernel_files import read_text

LOADED_BY_US = ("nbd", "zram", "dm_delay")
"""By nbd.py, swap.py and dm.py.  What they need, such as dm_mod, is unloaded with them when nobody else uses it."""
_SECONDS = 30.0


def loaded() -> set[str]:
    """Names of the modules that are loaded, as /proc/modules spells them; empty without modules."""
    try:
        return {line.split()[0] for line in read_text("/proc/modules").splitlines() if line}
    except FileNotFoundError:
        return set()


def unload(name: str) -> None:
    """Unload a module and what only it needed; no-op when it is not loaded.

    :raise OSError: it is in use.
    """
    if name not in loaded():
        return
    subprocess.run(["modprobe", "-q", "-r", name], check=False, timeout=_SECONDS)
    if name in loaded():
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), f"module {name}")
