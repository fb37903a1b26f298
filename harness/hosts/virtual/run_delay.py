# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the threads of a process were ready to run and had no processor: what the kernel calls run_delay."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from pathlib import Path

_APART_S = 0.5
_KEPT_S = 400.0


def run_delays(pid: int) -> dict[int, float]:
    """Seconds since each thread began, by its id; empty where the kernel does not count them (CONFIG_SCHED_INFO) or the
    process has ended.  Documentation/scheduler/sched-stats.rst: the second number of schedstat."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            found[int(thread.name)] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    return found


class RunDelays:
    """Remembers the last minutes; it is looked at whenever somebody asks."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._samples: deque[tuple[float, dict[int, float]]] = deque()
        self.look()

    def look(self) -> None:
        """Take a sample, unless there is a new one."""
        now = time.monotonic()
        if self._samples and now - self._samples[-1][0] < _APART_S:
            return
        while self._samples and now - self._samples[0][0] > _KEPT_S:
            self._samples.popleft()
        self._samples.append((now, run_delays(self._pid)))

    def within(self, seconds: float) -> float:
        """Seconds that the threads waited in the last ``seconds``, or since the first look, all together."""
        began = time.monotonic() - seconds
        before = self._samples[0][1]
        for at, sample in self._samples:
            if at <= began:
                before = sample
        return sum(waited - before.get(thread, 0.0) for thread, waited in run_delays(self._pid).items())
