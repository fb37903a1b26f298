# SPDX-License-Identifier: GPL-2.0-or-later
"""What the run left behind in QEMU's memory: after.json."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from harness.agent.host.cgroup import ScenarioCgroup
from harness.agent.host.kernel_files import PAGE
from harness.agent.host.syscalls import empty_lru_batches
from harness.agent.pages.guest_memory import GuestMemory
from harness.agent.pages.page_flags import PageFlags
from harness.agent.pages.pagemap import PageMap
from harness.contract.capture import AreaLeft, FinalState, PageLeft
from harness.contract.plan import SHARED_GPA, Backing, Plan, further_areas

SHARED_BYTES, WRITTEN_AT = 64, 8
SECONDS = 3.0
"""How long a page may be on no list, which migration takes off its list, or a CPU has in a batch."""
HOST_BYTES = 8
"""Of struct kvm_vcpu_pv_apf_data (arch/x86/include/uapi/asm/kvm_para.h) the host writes flags and token only."""


def inspect_after(
    plan: Plan, pid: int, memory: GuestMemory, group: ScenarioCgroup | None, let_come: Callable[[], None] = lambda: None
) -> FinalState:
    """The planned pages in the page table, in kpageflags and in kpagecgroup, and the shared areas.

    :param group: to which QEMU's memory is charged; None: to none that anybody knows.
    :param let_come: called once the pages have been looked at: an area that EN names may lie in a page that is not
        there, whose read somebody holds.
    :raise OSError: QEMU is gone.
    """
    pages = dict(_pages(plan, pid, memory, group))
    let_come()
    own = [_area(memory, SHARED_GPA + PAGE * vcpu) for vcpu in range(memory.vcpus)]
    return FinalState(
        shared_tail_zero={vcpu: area.tail_zero for vcpu, area in enumerate(own)},
        shared_flags={vcpu: area.flags for vcpu, area in enumerate(own)},
        shared_token={vcpu: area.token for vcpu, area in enumerate(own)},
        pages=pages,
        areas=dict(_areas(plan, memory)),
    )


def _areas(plan: Plan, memory: GuestMemory) -> Iterator[tuple[int, AreaLeft]]:
    """By gpa, those to which EN was moved: one in a page whose read fails has no words."""
    for gpa in further_areas(plan):
        with suppress(OSError):
            yield gpa, _area(memory, gpa)


def _area(memory: GuestMemory, gpa: int) -> AreaLeft:
    raw = memory.memory.read(memory.base + gpa, SHARED_BYTES)
    flags, token = struct.unpack_from("<II", raw)
    return AreaLeft(flags, token, not any(raw[HOST_BYTES:]))


def _pages(plan: Plan, pid: int, memory: GuestMemory, group: ScenarioCgroup | None) -> Iterator[tuple[int, PageLeft]]:
    """By gpa."""
    ours = {os.stat(path).st_ino for path in (group.path, group.qemu, group.pool)} if group else set()
    with PageMap(pid) as pagemap, PageFlags() as flags:
        unlisted = _unlisted(plan, pagemap, flags, memory)
        for page in plan.pages:
            frame = pagemap.frame(memory.base + page.gpa)
            found = flags.of(frame)
            if found is None:
                yield page.gpa, PageLeft(page.name, frame is not None)
            else:
                word = word_at(memory, page.gpa)
                on_list = None if unlisted is None or found.on_list is None else page.gpa not in unlisted
                owner = None if found.on_list is None else flags.group_of(frame)
                charged = owner in ours if ours and owner is not None and _has_an_owner(plan) else None
                yield (
                    page.gpa,
                    PageLeft(
                        page.name, True, found.dirty, found.swap_cache, found.large, word, on_list, charged,
                        found.uptodate, found.swap_backed,
                    ),
                )  # fmt: skip


def _has_an_owner(plan: Plan) -> bool:
    """Who reads a page of a file first is charged for it (mm/filemap.c:filemap_add_folio), a worker too, which is in no
    group; a page of swap belongs to whom it was taken from (mm/memcontrol.c:mem_cgroup_swapin_charge_folio)."""
    return plan.memory.backing is not Backing.FILE


def _unlisted(plan: Plan, pagemap: PageMap, flags: PageFlags, memory: GuestMemory) -> set[int] | None:
    """Planned pages, by gpa, that are on no list from which reclaim takes pages: a CPU has those that have just come in
    its batches, which are emptied, and somebody may have taken one off its list for a moment.  None: this kernel has no
    way to empty the batches; or a thread of the guest may keep a processor for itself, which is waited for then."""
    if plan.guest.realtime:
        return None
    end = time.monotonic() + SECONDS
    left = {page.gpa for page in plan.pages}
    while True:
        found = {gpa: flags.of(pagemap.frame(memory.base + gpa)) for gpa in left}
        left = {gpa for gpa, frame in found.items() if frame is not None and frame.on_list is False}
        if not left or time.monotonic() >= end:
            return left
        if not empty_lru_batches():
            return None


def word_at(memory: GuestMemory, gpa: int) -> int | None:
    """What a write of the probe guest changes (guest-images/probe/ops.c); of a page that is in the page table."""
    with suppress(OSError):
        return int(struct.unpack("<Q", memory.memory.read(memory.base + gpa + WRITTEN_AT, 8))[0])
    return None
