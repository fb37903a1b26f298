# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a host that stood still could have gone on: host/stalls.json, and what it says of a line of a kernel's log.

A watchdog of the kernel under test counts the time of a clock.  Where the host is a virtual machine, the threads of its
QEMU may have had no processor during that time: then nothing has happened because nothing was let happen.  So it is
with the kernel of a Linux guest, which runs on that host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from harness.contract.capture import OfRun
from harness.contract.kernel_trouble import GUEST_WAITS_S, WAITS_S, Blame, Trouble, all_trouble

FILE = "host/stalls.json"


@dataclass(frozen=True, slots=True)
class Stall:
    """A line of the kernel's log that says that nothing has happened for a while.

    :ivar stamp: the time of the line, as it is printed.
    :ivar of_s: so long before it, in seconds, nothing has happened (WAITS_S), and
    :ivar waited_s: for so many of these the threads of the host's QEMU were ready to run and had no processor, all
        threads together; 0 for a machine of its own.
    :ivar own_s: the same of the one thread that runs the processor which the line names; of several, the one that
        waited least.  None: the line names none, or its thread is not known.
    :ivar cpus: so many processors the host has; 1 also where it is not recorded.
    :ivar worst: nobody knows when it was said: it is of those ``of_s`` seconds of the run in which most was waited.
    """

    stamp: str
    of_s: float
    waited_s: float
    own_s: float | None = None
    cpus: int = 1
    worst: bool = False

    @property
    def starved(self) -> bool:
        """For most of the time the host was not let run: it says nothing of the kernel."""
        held_s = self.waited_s / max(1, self.cpus) if self.own_s is None else self.own_s
        return 2 * held_s > self.of_s

    def __str__(self) -> str:
        when = f"in the worst {self.of_s:.0f} s of the run" if self.worst else f"in the {self.of_s:.0f} s before it"
        if self.own_s is not None:
            return f"{when} the thread of the processor that it names waited {self.own_s:.1f} s to be let run"
        of = f", {self.cpus} processors" if self.cpus > 1 else ""
        return f"{when} the threads of the host's QEMU waited {self.waited_s:.1f} s for a processor, all together{of}"


@dataclass(frozen=True, slots=True)
class HostStalls(OfRun):
    """host/stalls.json: all of a run, in the order of the log.

    :ivar guest: those in the console of a Linux guest, whose ``of_s`` is GUEST_WAITS_S; None: not recorded.
    """

    stalls: tuple[Stall, ...]
    guest: tuple[Stall, ...] | None = None


def weighed(
    found: Iterable[Trouble], stalls: Iterable[Stall], kinds: Mapping[str, float] = WAITS_S
) -> Iterator[tuple[Trouble, Stall | None]]:
    """Each finding of a log with what is recorded of its stall.

    A stall of which nothing is recorded is no evidence against the kernel: it is the machine's.
    """
    known = {stall.stamp: stall for stall in stalls}
    for trouble in found:
        stall = known.get(trouble.stamp)
        if trouble.kind not in kinds or stall is not None:
            yield trouble, stall if trouble.kind in kinds else None
        else:
            line = f"{trouble.line} (whether the host had a processor then was not recorded)"
            yield replace(trouble, blame=Blame.MACHINE, line=line), None


def stalls_in(log: bytes, kinds: Mapping[str, float] = WAITS_S) -> Iterator[Stall]:
    """Those in the log of a machine of its own, which always has its processors, or of a guest on it."""
    for trouble in all_trouble(log.decode(errors="replace").splitlines()):
        if trouble.kind in kinds:
            yield Stall(trouble.stamp, kinds[trouble.kind], 0.0)


def guest_stalls_in(console: bytes) -> tuple[Stall, ...]:
    """Those in the console of a Linux guest whose host always has its processors."""
    return tuple(stalls_in(console, GUEST_WAITS_S))
