# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host's kernel log says of the kernel under test, and what it says of the machine below it."""

from __future__ import annotations

from collections.abc import Mapping

from harness.contract.host_stalls import FILE, HostStalls, Stall, weighed
from harness.contract.kernel_trouble import Blame, Trouble, all_trouble
from harness.contract.structure import from_json
from harness.errors import CaptureDamaged, UsageError

LOG = "host/dmesg.txt"


def host_trouble(files: Mapping[str, bytes]) -> tuple[Trouble, ...]:
    """The findings of the log, without those of a host that was not let run.

    :raise CaptureDamaged: host/stalls.json is not what it has to be.
    """
    return tuple(found for found, stall in _weighed(files) if stall is None or not stall.starved)


def against_the_kernel(files: Mapping[str, bytes]) -> tuple[str, ...] | None:
    """The lines of these that tell against the kernel; None: there is no log.  :raise CaptureDamaged: as before."""
    if LOG not in files:
        return None
    return tuple(found.line for found in host_trouble(files) if found.blame is Blame.KERNEL)


def starved(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """What the log says of a host that was not let run: a sentence each.  :raise CaptureDamaged: as before."""
    return tuple(
        f"the host says: {found.line}; {stall}"
        for found, stall in _weighed(files)
        if stall is not None and stall.starved
    )


def _weighed(files: Mapping[str, bytes]) -> list[tuple[Trouble, Stall | None]]:
    try:
        stalls = from_json(HostStalls, files[FILE]) if FILE in files else None
    except UsageError as exc:
        raise CaptureDamaged(f"{FILE}: {exc.message}") from exc
    log = files.get(LOG, b"").decode(errors="replace")
    return list(weighed(all_trouble(log.splitlines()), stalls))
