# SPDX-License-Identifier: GPL-2.0-or-later
"""mmap_lock of the VMM, before a run: who sleeps with it, and who waits for it.  A recording says when a word ended."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.pages import PRESENT, Pte
from harness.model.simulation.engine import MS, Process, Wait
from harness.model.simulation.world import World
from harness.model.walk.steps import WalkWait

_GIVEN_UP_NS = 10_000 * MS
"""How long the agent waits for the lock (harness/agent/guest/actions.py:change_mm)."""


@dataclass(slots=True)
class MmapLock:
    """Readers that sleep with the lock keep a writer waiting, and who comes behind him waits for him
    (kernel/locking/rwsem.c:rwsem_down_read_slowpath steals no lock from readers)."""

    world: World
    kept: int = 0  # by so many threads that sleep
    wanted: int = 0  # by so many writers

    def sleeps(self, wait: WalkWait) -> None:
        self.kept += wait.mmap_lock_held

    def wakes(self, wait: WalkWait) -> None:
        if wait.mmap_lock_held:
            self.kept -= 1
            self.world.engine.fire(self.world.changed)

    def read(self, pte: Pte, vcpu: int) -> Process:
        """A thread's look at a page: GUP-fast alone, which needs no lock, finds what is mapped."""
        if not self.wanted or pte in PRESENT:
            return
        self.world.deaf.add(vcpu)
        while self.wanted:
            yield Wait(signals=(self.world.changed,))
        self.world.deaf.discard(vcpu)

    def write(self) -> Process:
        """The host word change-mm; who has waited in vain for the agent's time does not come back from it."""
        if self.world.replay is not None or not self.kept:
            return
        given_up_ns = self.world.engine.now + _GIVEN_UP_NS
        self.wanted += 1
        while self.kept:
            yield Wait(signals=(self.world.changed,))
        self.wanted -= 1
        self.world.engine.fire(self.world.changed)
        if self.world.engine.now >= given_up_ns:
            yield Wait()
