# SPDX-License-Identifier: GPL-2.0-or-later
"""The clock of the simulation: processes are generators that wait for a time or for a signal.

Deterministic: what is due at the same nanosecond runs in the order in which it was asked for.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from harness.errors import ModelError

MS = 1_000_000
"""Nanoseconds in a millisecond."""
MAX_AT_ONCE = 100_000
"""So many actions without the clock moving are an endless loop."""


@dataclass(slots=True, eq=False)
class Signal:
    """Something that processes wait for; each ``fire`` wakes all that wait at that moment."""

    waiters: list[_Sleep] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Latch:
    """A signal that stays: who looks after it was fired need not wait."""

    signal: Signal = field(default_factory=Signal)
    over: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """What a process yields: go on at ``until_ns`` (absolute, -1: never by time) or when a signal fires."""

    until_ns: int = -1
    signals: tuple[Signal, ...] = ()


Process = Generator[Wait, None, None]


@dataclass(slots=True, eq=False)
class _Sleep:
    process: Process
    signals: tuple[Signal, ...]
    over: bool = False


@dataclass(slots=True)
class Engine:
    """The event queue.  ``now`` is in nanoseconds since the guest was let go."""

    now: int = 0
    _heap: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _seq: int = 0
    _at_once: int = 0

    def at(self, t_ns: int, action: Callable[[], None]) -> None:
        """Call ``action`` at the absolute time ``t_ns`` (now, if that is in the past)."""
        self._seq += 1
        heapq.heappush(self._heap, (max(t_ns, self.now), self._seq, action))

    def spawn(self, process: Process, delay_ns: int = 0) -> None:
        """Start a process after ``delay_ns``."""
        sleep = _Sleep(process, ())
        self.at(self.now + delay_ns, lambda: self._resume(sleep))

    def fire(self, signal: Signal) -> None:
        """Wake all processes that wait for ``signal`` now."""
        for sleep in signal.waiters:
            if not sleep.over:
                self._wake(sleep)
        signal.waiters.clear()

    def step(self, until_ns: int) -> bool:
        """Process what is due next; False if nothing is due up to ``until_ns`` (the clock then stands there).

        :raise ModelError: time does not go on.
        """
        if not self._heap or self._heap[0][0] > until_ns:
            self.now = max(self.now, until_ns)
            return False
        before = self.now
        self.now, _, action = heapq.heappop(self._heap)
        self._at_once = self._at_once + 1 if self.now == before else 0
        if self._at_once > MAX_AT_ONCE:
            raise ModelError(f"the simulation goes round in a circle at {self.now} ns")
        action()
        return True

    def run(self, until_ns: int) -> None:
        """Process everything that is due up to ``until_ns``."""
        while self.step(until_ns):
            pass

    def _wake(self, sleep: _Sleep) -> None:
        sleep.over = True
        fresh = _Sleep(sleep.process, ())
        self.at(self.now, lambda: self._resume(fresh))

    def _timeout(self, sleep: _Sleep) -> None:
        if not sleep.over:
            sleep.over = True
            self._resume(_Sleep(sleep.process, ()))

    def _resume(self, sleep: _Sleep) -> None:
        try:
            wait = next(sleep.process)
        except StopIteration:
            return
        parked = _Sleep(sleep.process, wait.signals)
        for signal in wait.signals:
            signal.waiters = [s for s in signal.waiters if not s.over]
            signal.waiters.append(parked)
        if wait.until_ns >= 0:
            self.at(wait.until_ns, lambda: self._timeout(parked))
