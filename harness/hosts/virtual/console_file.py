# SPDX-License-Identifier: GPL-2.0-or-later
"""The console file of a running host, read as it grows, and searched for findings."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from harness.contract.kernel_trouble import DUMP_BYTES, STALLS, Trouble, find_trouble
from harness.hosts.virtual.console import tail

_QUIET_S = 1.0


class ConsoleWatch:
    """Looks at a console file whenever it is asked: no thread to stop, and no finding between two looks is lost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._searched = 0  # up to here there is no finding
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
        """The first finding, and the same one again.  A stall is one when its dump is there."""
        size = self.size()
        if size <= self._searched:
            return None
        # One byte before: the pattern wants to see the end of the line before.
        start = max(0, self._searched - 1)
        text = self.text(start)
        found = find_trouble(text)
        if found is not None:
            found = replace(found, offset=start + found.offset)
            return found if self._told_whole(found, size) else None
        self._searched = start + text.rfind(b"\n") + 1
        return None

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
