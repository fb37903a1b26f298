# SPDX-License-Identifier: GPL-2.0-or-later
"""dm-delay devices by dmsetup(8).

Table: ``0 <sectors> delay <device> 0 <read ms> <device> 0 0``: reads delayed, writes not.
What holds and releases reads (drivers/md/dm-delay.c:delay_presuspend, 5.10 to 6.12): loading another table suspends the
device, and that submits every bio held so far, at once.  So "freeze" is a table with a delay of an hour, and "thaw"
the table with the old delay: reads that were held go out when it is loaded.  A mere suspend would not do: it releases
what is held, and fails read-ahead bios of file systems with EIO (drivers/md/dm.c:dm_submit_bio, REQ_RAHEAD).
"""

from __future__ import annotations

import os
import subprocess

from harness.agent.files import read_text
from harness.errors import InfraFault, Unsupported

FROZEN_MS = 3_600_000
DMSETUP_SECONDS = 30.0


def delay_table(device: str, sectors: int, read_ms: int) -> str:
    """The table line of a dm-delay device over the whole of ``device`` (``sectors`` of 512 bytes)."""
    return f"0 {sectors} delay {device} 0 {read_ms} {device} 0 0"


def device_of(name: str) -> str:
    """The kernel name (``dm-0``) of a device-mapper device, "" if there is none of this name."""
    for entry in sorted(os.listdir("/sys/block")):
        if entry.startswith("dm-") and read_text(f"/sys/block/{entry}/dm/name").strip() == name:
            return entry
    return ""


def exists(name: str) -> bool:
    return device_of(name) != ""


def create(name: str, device: str, sectors: int, read_ms: int) -> str:
    """Make the device; returns its path /dev/dm-N.  :raise Unsupported: no dmsetup or no dm-delay on this host."""
    _dmsetup("create", "--noudevsync", name, "--table", delay_table(device, sectors, read_ms))
    return f"/dev/{device_of(name)}"


def set_delay(name: str, device: str, sectors: int, read_ms: int) -> None:
    """Load another read delay; every read that is held goes out now."""
    _dmsetup("reload", name, "--table", delay_table(device, sectors, read_ms))
    # resume of a device with a new table suspends it, swaps the tables and resumes it, in one ioctl.
    # No lockfs: freezing a mounted file system would wait for its dirty pages.
    _dmsetup("resume", "--noudevsync", "--nolockfs", name)


def remove(name: str) -> None:
    """:raise InfraFault: still open."""
    _dmsetup("remove", "--noudevsync", name)


def has_delay() -> bool:
    """Whether device-mapper offers the delay target (asked of the kernel, module loaded if there is one)."""
    try:
        subprocess.run(["modprobe", "-q", "dm-delay"], check=False, timeout=DMSETUP_SECONDS)
    except OSError:
        pass  # no modprobe: then it is built in, or it is not there
    try:
        return any(line.startswith("delay ") for line in _dmsetup("targets").splitlines())
    except (Unsupported, InfraFault):
        return False


def _dmsetup(*args: str) -> str:
    argv = ["dmsetup", *args]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DMSETUP_SECONDS, check=False)
    except FileNotFoundError:
        raise Unsupported("dmsetup is not installed on the host") from None
    if done.returncode:
        raise InfraFault(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
