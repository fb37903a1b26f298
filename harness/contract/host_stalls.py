# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a host that stood still could have gone on: host/stalls.json, and what it says of a line of the kernel's log.

A watchdog of the kernel under test counts the time of a clock.  Where the host is a virtual machine, the threads of its
QEMU may have had no processor during that time: then nothing has happened because nothing was let happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from harness.contract.capture import OfRun
from harness.contract.kernel_trouble import WAITS_S, Blame, Trouble, all_trouble

FILE = "host/stalls.json"


@dataclass(frozen=True, slots=True)
class Stall:
    """A line of the kernel's log that says that nothing has happened for a while.

    :ivar stamp: the time of the line, as it is printed.
    :ivar of_s: so long before it, in seconds, nothing has happened (WAITS_S), and
    :ivar waited_s: for so many of these the threads of the host's QEMU were ready to run and had no processor, all
        threads together; 0 for a machine of its own.
    """

    stamp: str
    of_s: float
    waited_s: float

    @property
    def starved(self) -> bool:
        """For most of the time the host was not let run: it says nothing of the kernel."""
        return 2 * self.waited_s > self.of_s

    def __str__(self) -> str:
        return (
            f"in the {self.of_s:.0f} s before it the threads of the host's QEMU waited {self.waited_s:.1f} s for a"
            " processor, all together"
        )


@dataclass(frozen=True, slots=True)
class HostStalls(OfRun):
    """host/stalls.json: all of a run, in the order of the log."""

    stalls: tuple[Stall, ...]


def weighed(found: Iterable[Trouble], stalls: HostStalls | None) -> Iterator[tuple[Trouble, Stall | None]]:
    """Each finding of a host's log with what is recorded of its stall.

    A stall of which nothing is recorded is no evidence against the kernel: it is the machine's.
    """
    known = {stall.stamp: stall for stall in stalls.stalls} if stalls is not None else {}
    for trouble in found:
        stall = known.get(trouble.stamp)
        if trouble.kind not in WAITS_S or stall is not None:
            yield trouble, stall if trouble.kind in WAITS_S else None
        else:
            line = f"{trouble.line} (whether the host had a processor then was not recorded)"
            yield replace(trouble, blame=Blame.MACHINE, line=line), None


def stalls_in(log: bytes) -> Iterator[Stall]:
    """Those in the log of a machine of its own, which always has its processors."""
    for trouble in all_trouble(log.decode(errors="replace").splitlines()):
        if trouble.kind in WAITS_S:
            yield Stall(trouble.stamp, WAITS_S[trouble.kind], 0.0)
