# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages of a read share a bio, and so end and fail together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.model.pages import Lock
from harness.model.walk.steps import Read, Thread

if TYPE_CHECKING:
    from harness.model.simulation.host_memory import Memory

_SWAP_IOCB = 32
"""Pages of one struct swap_iocb (mm/page_io.c, SWAP_CLUSTER_MAX): no more share a bio."""


_MAY_FAIL = (
    "a page that cannot be read is read with others: those that are next to it on the swap device share its bio and"
    " fail, too; where they are is not known before a run"
)


def lengths_of_bios(memory: Memory, read: Read, vpns: list[int], who: Thread) -> list[tuple[int, bool]]:
    """Pages of each bio, and whether it begins with them.  Swap: one each; from 7.3 on (mm/page_io.c:swap_add_folio)
    those that follow on each other on the device share one, also with what the thread has submitted before in its call
    of handle_mm_fault, where others came between: the struct swap_iocb is submitted when the next page does not follow,
    or behind the window.  Where pages are on the device nobody knows before a run, and of shmem never."""
    if read.unit == "index":
        return [(len(bio), True) for bio in read.folios.bios] if read.folios else [(len(read.pages), True)]
    situation = memory.world.situation
    if not situation.kernel.swap_reads_joined:
        return [(1, True)] * len(vpns)
    if not situation.swap_offsets_known:
        memory.world.may_be_less[f"BIO_{who}"] += max(0, len(vpns) - 1)
        return [(1, True)] * len(vpns)
    begun = _begun(memory)
    lengths = _runs_on_device(memory, begun + vpns)
    if memory.watch is not None:
        memory.watch.bio = (begun + vpns)[-lengths[-1] :] if lengths else []
    first = [(lengths[0] - len(begun), False)] if begun else [(lengths[0], True)] if lengths else []
    return [bio for bio in first if bio[0] > 0] + [(length, True) for length in lengths[1:]]


def _begun(memory: Memory) -> list[int]:
    """Pages of the bio that the running thread has begun in its call of handle_mm_fault."""
    return memory.watch.bio if memory.watch is not None else []


def fail_together(memory: Memory, vpns: list[int]) -> None:
    """Swap pages of one bio fail together (mm/page_io.c:swap_read_end).  Before a run nobody knows which share one.

    Since bios are joined PSWPIN is counted where they end, and only for those that did not fail.
    """
    situation = memory.world.situation
    if not (situation.kernel.swap_reads_joined and situation.device.issues_bios):
        return
    if not situation.swap_offsets_known:
        fails = [(slot := memory.pages[vpn].swap) is not None and slot.read_fails for vpn in vpns]
        if any(fails) and not all(fails):
            memory.world.notes.append(_MAY_FAIL)
        memory.world.count("PSWPIN", -sum(fails))
        return
    begun = _begun(memory)
    rest = begun + vpns
    before = _failed_reads(memory, begun)
    for length in _runs_on_device(memory, rest):
        bio, rest = rest[:length], rest[length:]
        slots = {vpn: slot for vpn in bio if (slot := memory.pages[vpn].swap) is not None}
        if any(slot.read_fails for slot in slots.values()):
            for vpn, slot in slots.items():
                memory.arrivals.put_slot(vpn, replace(slot, read_fails=True))
    memory.world.count("PSWPIN", before - _failed_reads(memory, begun + vpns))


def _failed_reads(memory: Memory, vpns: list[int]) -> int:
    """How many of these swap pages cannot be read."""
    slots = (memory.pages[vpn].swap for vpn in vpns)
    return sum(slot is not None and slot.read_fails for slot in slots)


def uncount_reads_in_flight(memory: Memory) -> None:
    """All is over: PSWPIN, where it is counted when a read ends, does not count those that did not.

    One that nothing holds may still have ended before the counters were read, which is after the recording.
    """
    world = memory.world
    if not world.situation.kernel.swap_reads_joined:
        return
    pages = [p for p in memory.pages.values() if p.folio is not None and p.folio.lock is Lock.READ]
    left = sum(p.swap is not None and not p.swap.read_fails for p in pages)
    world.count("PSWPIN", -left)
    if memory.gate is None:
        world.may_be_more["PSWPIN"] += left


def _runs_on_device(memory: Memory, vpns: list[int]) -> list[int]:
    """Lengths of the runs of pages that follow on each other on the device, none longer than a bio may be."""
    # One that its reader has mapped has no slot any more.
    before = {vpn: offset for offset, vpn in memory.slots.items()}
    slots = [slot.offset if (slot := memory.pages[vpn].swap) else before.get(vpn, 0) for vpn in vpns]
    runs: list[int] = []
    for last, offset in zip((-2, *slots), slots, strict=False):
        if offset == last + 1 and runs[-1] < _SWAP_IOCB:
            runs[-1] += 1
        else:
            runs.append(1)
    return runs
