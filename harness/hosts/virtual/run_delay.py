# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the threads of a process were ready to run and had no processor: what the kernel calls run_delay."""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.contract.host_stalls import Stall

_APART_S = 0.5
_KEPT_S = 700.0
_RAN_S = 0.5
_VCPU = re.compile(r"CPU (\d+)/")
"""QEMU's name of a thread that runs a processor, with debug-threads=on (accel/tcg/tcg-accel-ops-mttcg.c, accel/kvm)."""


def _schedstats(pid: int) -> dict[int, tuple[float, float]]:
    """How long each thread has run and how long it was ready to and did not, in seconds since it began, by its id;
    empty where the kernel does not count that (CONFIG_SCHED_INFO) or the process has ended.
    Documentation/scheduler/sched-stats.rst: the first two numbers of schedstat."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            ran, waited = (thread / "schedstat").read_text().split()[:2]
            found[int(thread.name)] = int(ran) / 1e9, int(waited) / 1e9
    return found


def run_delays(pid: int) -> dict[int, float]:
    """Seconds since each thread began, by its id; see _schedstats()."""
    return {thread: waited for thread, (_, waited) in _schedstats(pid).items()}


def vcpu_threads(pid: int) -> dict[int, int]:
    """Which thread of a QEMU runs which processor: index by thread id; empty where it does not name its threads."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError, ValueError):
            if name := _VCPU.match((thread / "comm").read_text()):
                found[int(thread.name)] = int(name[1])
    return found


@dataclass(frozen=True, slots=True)
class Waited:
    """Seconds that the threads waited: ``all_s`` together, and by the processor that a thread runs."""

    all_s: float
    of_cpu: Mapping[int, float]

    def stall(self, stamp: str, of_s: float, cpus: Collection[int] = (), *, worst: bool = False) -> Stall:
        """What is recorded of a stall that names these processors."""
        own = [self.of_cpu[cpu] for cpu in cpus if cpu in self.of_cpu]
        return Stall(
            stamp, of_s, self.all_s, min(own) if len(own) == len(cpus) > 0 else None, max(1, len(self.of_cpu)), worst
        )


class RunDelays:
    """Remembers the last minutes; it is looked at whenever somebody asks."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._samples: deque[tuple[float, dict[int, float]]] = deque()
        self._runs: dict[int, int] = {}
        self._counted = 0.0, 0.0  # run and waited, when the slowness was last asked for
        self._slowness = 1.0
        self.look()

    def look(self) -> None:
        """Take a sample, unless there is a new one."""
        now = time.monotonic()
        if self._samples and now - self._samples[-1][0] < _APART_S:
            return
        while self._samples and now - self._samples[0][0] > _KEPT_S:
            self._samples.popleft()
        self._samples.append((now, run_delays(self._pid)))

    def within(self, seconds: float) -> Waited:
        """In the last ``seconds``, or since the first look."""
        began = time.monotonic() - seconds
        before = self._samples[0][1]
        for at, sample in self._samples:
            if at <= began:
                before = sample
        return self._between(before, run_delays(self._pid))

    def worst(self, seconds: float) -> Waited:
        """In those ``seconds`` of what is remembered in which the threads waited most."""
        samples = [*self._samples, (time.monotonic(), run_delays(self._pid))]
        first, found = 0, self._between(samples[0][1], samples[0][1])
        for at, sample in samples:
            while samples[first + 1 : first + 2] and samples[first + 1][0] <= at - seconds:
                first += 1
            found = max(found, self._between(samples[first][1], sample), key=lambda waited: waited.all_s)
        return found

    def slowness(self) -> float:
        """How many times longer than with processors of their own the threads that run processors have taken for what
        they did since this was last asked; what it was then, if they did next to nothing."""
        own, all_ = vcpu_threads(self._pid), _schedstats(self._pid)
        ran, waited = (sum(all_[thread][n] for thread in own if thread in all_) for n in (0, 1))
        more_ran, more_waited = ran - self._counted[0], waited - self._counted[1]
        if more_ran >= _RAN_S:
            self._counted = ran, waited
            self._slowness = (more_ran + more_waited) / more_ran
        return self._slowness

    def _between(self, before: Mapping[int, float], after: Mapping[int, float]) -> Waited:
        grown = {thread: waited - before.get(thread, 0.0) for thread, waited in after.items()}
        self._runs |= vcpu_threads(self._pid)
        return Waited(sum(grown.values()), {cpu: grown[t] for t, cpu in self._runs.items() if t in grown})
