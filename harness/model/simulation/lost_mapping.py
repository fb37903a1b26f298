# SPDX-License-Identifier: GPL-2.0-or-later
"""RET_PF_RETRY: what GUP found was not mapped, because something came between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.model.events import Kind
from harness.model.walk.steps import End

if TYPE_CHECKING:
    from harness.model.simulation.host_memory import Memory, Resolution
    from harness.model.simulation.recorded import RecordedEvent
    from harness.model.simulation.world import World


def may_be_lost(
    world: World, memory: Memory, vcpu: int, gpa: int, got: Resolution, mark: RecordedEvent | None, *, guest_mode: bool
) -> None:
    """``got`` is stale where a notifier came between, or another vCPU's fault in the TDP MMU (page_tables.py), and the
    recording goes on as if nothing was mapped."""
    replay = world.replay
    if replay is None or mark is None or got.end is not End.MAPPED or got.stale:
        return
    since, until = min(mark.start_ns, mark.since_ns or mark.start_ns), mark.until_ns
    if replay.invalidated(vcpu, since, until) or memory.collides(
        gpa, replay.mapped_beside(vcpu, since, until), guest_mode=guest_mode, since_ns=since
    ):
        following, page = replay.peek(vcpu), gpa >> 12
        once_more = following is not None and following.fits(Kind.PF, page, write=mark.write)
        likely = once_more or replay.invalidated_on(page, since, until)
        got.stale = (replay.choices.ask(2, f"whether the mapping of {page:#x} was lost", page) == 1) is not likely
