# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host's kernel log says of the kernel under test, and what it says of the machine below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.contract.host_stalls import FILE, HostStalls, Stall, weighed
from harness.contract.kernel_trouble import Blame, Trouble, all_trouble
from harness.contract.structure import from_json
from harness.errors import CaptureDamaged, UsageError

LOG = "host/dmesg.txt"


@dataclass(frozen=True, slots=True)
class HostLog:
    """The findings of a log, in their order, each with what is recorded of its stall."""

    found: tuple[tuple[Trouble, Stall | None], ...] = ()

    @property
    def trouble(self) -> tuple[Trouble, ...]:
        """Without those of a host that was not let run."""
        return tuple(found for found, stall in self.found if stall is None or not stall.starved)

    @property
    def against_the_kernel(self) -> tuple[str, ...]:
        """The lines of these that tell against the kernel."""
        return tuple(found.line for found in self.trouble if found.blame is Blame.KERNEL)

    @property
    def starved(self) -> tuple[str, ...]:
        """What was said of a host that was not let run: a sentence each."""
        return tuple(
            f"the host says: {found.line}; {stall}"
            for found, stall in self.found
            if stall is not None and stall.starved
        )


def read_host_log(files: Mapping[str, bytes], nonce: int) -> HostLog:
    """Of the run with this nonce; no log has nothing to say.

    :raise CaptureDamaged: host/stalls.json is not what it has to be, or of another run.
    """
    try:
        stalls = from_json(HostStalls, files[FILE]) if FILE in files else None
    except UsageError as exc:
        raise CaptureDamaged(f"{FILE}: {exc.message}") from exc
    if stalls is not None and stalls.nonce != nonce:
        raise CaptureDamaged(f"{FILE} carries nonce {stalls.nonce or 0:#x}, the plan {nonce:#x}: not of this run")
    log = files.get(LOG, b"").decode(errors="replace")
    return HostLog(tuple(weighed(all_trouble(log.splitlines()), stalls)))
