# SPDX-License-Identifier: GPL-2.0-or-later
"""The console file of a running host, read as it grows, and searched for findings."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from harness.contract.host_stalls import Stall
from harness.contract.kernel_trouble import (
    DUMP_BYTES,
    GUEST_WAITS_S,
    STALLS,
    WAITS_S,
    Blame,
    Trouble,
    all_trouble,
    find_trouble,
)
from harness.hosts.virtual.console import tail
from harness.hosts.virtual.run_delay import RunDelays, Waited

_QUIET_S = 1.0


class ConsoleWatch:
    """Looks at a console file whenever it is asked: no thread to stop, and no finding between two looks is lost.

    ``waiting``: of the process that writes it.
    """

    def __init__(self, path: Path, waiting: RunDelays) -> None:
        self.path = path
        self._waiting = waiting
        self._searched = 0  # up to here there is no finding
        self._looked = 0  # up to here stalls are known
        self._waited: dict[int, Waited] = {}  # before a stall, by its offset
        self._grown = 0, 0.0  # to how many bytes, and when that was seen

    def text(self, since: int = 0) -> bytes:
        """Console bytes from offset ``since`` on; empty while there is no file."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(since)
                return stream.read()
        except FileNotFoundError:
            return b""

    def size(self) -> int:
        """Bytes so far."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def fault(self) -> Trouble | None:
        """The first finding, and the same one again.  A stall is one when its dump is there, and none when the host was
        not let run."""
        self._look()
        size = self.size()
        if size <= self._searched:
            return None
        # One byte before: the pattern wants to see the end of the line before.
        start = max(0, self._searched - 1)
        text = self.text(start)
        from_ = 0
        while (found := find_trouble(text, from_)) is not None:
            offset = start + found.offset
            stall = self._stall(found, offset) if found.blame is Blame.KERNEL else None
            if stall is None or not stall.starved:
                found = replace(found, offset=offset)
                return found if self._told_whole(found, size) else None
            from_ = found.offset
        self._searched = start + text.rfind(b"\n") + 1
        return None

    def stalls(self, since: int = 0) -> tuple[Stall, ...]:
        """Those from offset ``since`` on, in their order."""
        self._look()
        start = max(0, since - 1)
        text, from_, told = self.text(start), 0, []
        while (found := find_trouble(text, from_)) is not None:
            from_ = found.offset
            if start + found.offset >= since and (stall := self._stall(found, start + found.offset)) is not None:
                told.append(stall)
        return tuple(told)

    def guest_stalls(self, console: bytes) -> tuple[Stall, ...]:
        """Those of a Linux guest that ran on this host lately.  The processors that its kernel names are its own."""
        found = all_trouble(console.decode(errors="replace").splitlines())
        of_s = [(t.stamp, GUEST_WAITS_S[t.kind]) for t in found if t.kind in GUEST_WAITS_S]
        return tuple(self._waiting.worst(seconds).stall(stamp, seconds, worst=True) for stamp, seconds in of_s)

    def slowness(self) -> float:
        """Of who writes it; see RunDelays.slowness()."""
        return self._waiting.slowness()

    def _stall(self, found: Trouble, offset: int) -> Stall | None:
        """Which processors it names may be in lines that came later."""
        waited = self._waited.get(offset)
        return waited.stall(found.stamp, WAITS_S[found.kind], found.cpus) if waited and found.kind in WAITS_S else None

    def _look(self) -> None:
        """Weigh each new stall while one can: how long the host waited is asked of a running process."""
        self._waiting.look()
        if self.size() <= self._looked:
            return
        start = max(0, self._looked - 1)
        text = self.text(start)
        from_ = 0
        while (found := find_trouble(text, from_)) is not None:
            from_, offset = found.offset, start + found.offset
            if found.kind in WAITS_S and offset not in self._waited:
                self._waited[offset] = self._waiting.within(WAITS_S[found.kind])
        self._looked = start + text.rfind(b"\n") + 1

    def _told_whole(self, found: Trouble, size: int) -> bool:
        """Behind a stall the kernel dumps its processors, and that says whose fault it is: nothing more for 1 s, or
        more than is looked at."""
        if found.kind not in STALLS or size - found.offset > DUMP_BYTES:
            return True
        if self._grown[0] != size:
            self._grown = size, time.monotonic()
        return time.monotonic() - self._grown[1] > _QUIET_S

    def context(self, found: Trouble, lines: int = 30) -> str:
        """The finding and what follows it, safe to print."""
        following = self.text(found.offset)[: 200 * lines].split(b"\n")
        return tail(b"\n".join(following[:lines]), lines)

    def tail(self, lines: int = 20) -> str:
        """The last lines, safe to print."""
        return tail(self.text(max(0, self.size() - 16384)), lines)
