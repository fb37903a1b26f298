# SPDX-License-Identifier: GPL-2.0-or-later
"""Whoever holds the userfaultfd answers a missing page with UFFDIO_COPY, which happens at a moment of no event's.

Where the MMU fills neighbours, others look for the page as well, and in no call of handle_mm_fault (pte_prefetch.py).
A page of shmem is in the page cache, locked, before it is mapped (mm/shmem.c:shmem_mfill_atomic_pte, 7.3:
mm/userfaultfd.c:__mfill_atomic_pte): who comes between finds it there, and waits for the lock, whatever the fault flags
say (mm/shmem.c:shmem_get_folio_gfp).
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from harness.model.pages import Backing, Folio, Lock, with_folio
from harness.model.simulation.engine import Process, Wait
from harness.model.simulation.pte_prefetch import prefetched_with
from harness.model.walk.steps import WaitKind
from harness.model.walk.write_protect import userfault_missing

if TYPE_CHECKING:
    from collections.abc import Set

    from harness.model.simulation.host_memory import Memory
    from harness.model.simulation.recorded import FaultCall, Recorded
    from harness.model.simulation.replay import Replay


def copied(memory: Memory, gpa: int) -> Process:
    """UFFDIO_COPY when the rule says so, or when it was recorded."""
    replay, gfn = memory.world.replay, gpa >> 12
    if replay is not None:
        end = replay.read_end(gfn, memory.world.engine.now)
        if end < 0:
            return
        yield Wait(until_ns=end)
        yield from _recorded(memory, replay, gpa, end)
    elif memory.gate is not None:
        yield from memory.gate.hold(frozenset({gfn}), memory.device.loaded)
    else:
        yield from memory.device.over(memory.world.engine.now + memory.device.delay_ns)
    memory.happen(gpa, WaitKind.USERFAULT)


def _recorded(memory: Memory, replay: Replay, gpa: int, decided_ns: int) -> Process:
    """Until it is mapped."""
    gfn, vpn, engine = gpa >> 12, memory.vpn(gpa), memory.world.engine
    shmem = memory.pages[vpn].vma.backing is Backing.SHMEM
    met = _met_in_cache(replay.recorded, gfn, decided_ns) if shmem else None
    if met is None or not replay.choices.maybe(f"whether {gfn:#x} was met before it was mapped", gfn, likely=True):
        beside, why = prefetched_with(memory, gfn) - {gfn}, f"when the page {gfn:#x} was copied"
        yield Wait(until_ns=replay.choices.moment(moments(replay, gfn, decided_ns, beside), why, gfn))
        return
    yield Wait(until_ns=max(engine.now, met.start_ns - 1))
    if userfault_missing(memory.pages[vpn]):
        memory.pages[vpn] = with_folio(memory.pages[vpn], Folio(lock=Lock.OTHER))
    woken = met.woke_ns if met.woke_ns >= 0 else met.end_ns  # on a processor again: others have found it mapped since
    yield Wait(until_ns=max(engine.now, min(woken, replay.recorded.over.get((gfn, decided_ns), woken)) - 1))


def moments(replay: Replay, gfn: int, decided_ns: int, beside: Set[int] = frozenset()) -> list[int]:
    """When UFFDIO_COPY may have brought the page; first the moment behind the last call of handle_mm_fault that missed
    it.  ``beside``: pages with which KVM looks for this one, too, in no call."""
    recorded, found = replay.recorded, [decided_ns, *replay.unlocks(gfn, decided_ns)]
    over, ended = found[-1], recorded.over.get((gfn, decided_ns), decided_ns)
    # Before a call that is done with the page at once there was a look that missed it (get_user_page_fast_only).
    calls = recorded.calls.get(gfn, ())
    found += [c.start_ns - 1 for c in calls if not c.asked and decided_ns < c.start_ns - 1 < over]
    absent = replay.last_missed([c for c in calls if c.asked], decided_ns, over)
    # Who looked at it and called nobody has found it by then (get_user_page_fast_only).
    found += [
        m.start_ns - 1 for m in replay.looks(gfn) if not (m.windows or m.cut) and decided_ns < m.start_ns - 1 < over
    ]
    looks = (max(m.end_ns, m.until_ns) for page in beside for m in replay.looks(page))
    found += [look + 1 for look in looks if decided_ns < look < ended]
    return sorted(set(found), key=lambda moment: (moment < absent, moment))


def _met_in_cache(recorded: Recorded, gfn: int, decided_ns: int) -> FaultCall | None:
    """The first call that slept for the page and was not told to retry: it had found it there, and locked."""
    over = recorded.over.get((gfn, decided_ns), decided_ns)
    calls = (c for c in recorded.calls.get(gfn, ()) if c.start_ns < over and decided_ns < c.end_ns)
    return min((c for c in calls if c.slept and not c.asked), key=attrgetter("start_ns"), default=None)
