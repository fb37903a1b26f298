# SPDX-License-Identifier: GPL-2.0-or-later
"""The proof, page by page, that the planned states are reached: precondition.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from harness.agent.host.kernel_files import PAGE
from harness.agent.host.read_counters import swap_cached_pages, writeback_pages
from harness.agent.pages.extents import Extent, parts
from harness.agent.pages.page_flags import FrameFlags, PageFlags
from harness.agent.pages.pagemap import PageEntry, PageMap
from harness.agent.pages.pageout import Target, pages_outside_plan
from harness.agent.ram.file import READ_AROUND, unused_below_pool, windows
from harness.agent.ram.guest_ram import cached_pages, is_hole
from harness.contract.capture import OutsidePage, PageProof, Precondition, out_of_state
from harness.contract.plan import POOL_GPA, RAM_FILE_DATA_AFTER, RAM_FILE_DATA_BEFORE, Backing, Page, PageStart, Plan
from harness.contract.probe_abi import page_word


def inspect(target: Target) -> Precondition:
    """What is, next to what was planned; ``reached`` is true only if every page and every total agrees.

    ``cached``: in the page cache or swap cache.  Linux has no way to ask that of one anonymous page of another process;
    it is known from the total: SwapCached (of the cgroup, where others have swap) must be the number planned so.
    """
    swap_cached = swap_cached_pages(target.group)
    cache = cached_pages(target.ram_fd, target.plan.guest.memory_mib << 20) if target.ram_fd >= 0 else b""
    extents = target.ram.extents(target.ram_fd)
    with PageMap(target.pid) as pagemap, PageFlags() as flags:
        pages = [
            _page(target, page, pagemap.entry(target.address(page)), cache, swap_cached) for page in target.plan.pages
        ]
        if extents is not None:
            pages = [
                replace(
                    proof,
                    problem=proof.problem
                    or _folio_problem(target, page, flags.of(pagemap.frame(target.address(page)))),
                )
                for page, proof in zip(target.plan.pages, pages, strict=True)
            ]
    if extents is not None:
        pages = [
            replace(
                proof,
                sector=_sector(extents, page),
                problem=proof.problem or _torn_window(target.plan, extents, page),
            )
            for page, proof in zip(target.plan.pages, pages, strict=True)
        ]
    outside = tuple(
        OutsidePage(address, _gpa(target, address), region.path or region.permissions)
        for region, address in pages_outside_plan(target)
    )
    planned_cached = sum(page.start is PageStart.SWAPCACHE for page in target.plan.pages)
    problems = [f"{p.name}: {p.problem}" for p in pages if p.problem]
    problems += [f"outside the plan swapped out: {o.address:#x} ({o.region})" for o in outside]
    if extents is not None and (strays := _cached_strays(target.plan, cache)):
        problems.append(f"{len(strays)} pages around the plan's are in the page cache, the first at {strays[0]:#x}")
    if swap_cached != planned_cached:
        problems.append(f"{swap_cached} pages in the swap cache, planned {planned_cached}")
    return Precondition(
        reached=not problems,
        reason="; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else ""),
        totals={
            "pages": len(pages),
            "present": sum(p.present for p in pages),
            "swapped": sum(p.swapped for p in pages),
            "swap_cached_host": swap_cached,
            "writeback_host": writeback_pages(),
        },
        outside=outside,
        pages={p.gpa: p for p in pages},
    )


def with_places(proof: Precondition, plan: Plan, find: Callable[[Sequence[int]], Mapping[int, int]]) -> Precondition:
    """With the swap slots of shmem, which /proc/PID/pagemap does not have: whoever is the device knows where each page
    was written, by its content.

    :param find: the offsets on the device, in bytes, of pages that begin with these 8 bytes.
    """
    words = {
        page_word(page.gpa, plan.nonce): page.gpa
        for page in proof.pages.values()
        if plan.memory.backing is Backing.MEMFD and page.start is PageStart.SWAPPED and page.swap_offset is None
    }
    slots = {words[word]: offset // PAGE for word, offset in find(tuple(words)).items()} if words else {}
    pages = {gpa: replace(page, swap_offset=slots.get(gpa, page.swap_offset)) for gpa, page in proof.pages.items()}
    return replace(proof, pages=pages)


def sectors(proof: Precondition) -> dict[int, int]:
    """gpa -> first 512-byte sector on the device, of the planned pages of which it is known.

    A swap area over a whole device: slot n is page n of the device (mm/swapfile.c:add_swap_extent).
    """
    found = {}
    for gpa, page in proof.pages.items():
        if page.sector is not None:
            found[gpa] = page.sector
        elif page.swap_offset is not None:
            found[gpa] = page.swap_offset * PAGE >> 9
    return found


def _gpa(target: Target, address: int) -> int | None:
    gpa = address - target.memory.base
    return gpa if 0 <= gpa < target.plan.guest.memory_mib << 20 else None


def _page(target: Target, page: Page, entry: PageEntry, cache: bytes, swap_cached: int) -> PageProof:
    if target.ram_fd >= 0:
        cached = bool(cache[page.gpa >> 12] & 1)
        hole: bool | None = is_hole(target.ram_fd, page.gpa)
    else:
        cached, hole = entry.swapped and page.start is PageStart.SWAPCACHE and swap_cached > 0, None
    proof = PageProof(
        gpa=page.gpa,
        name=page.name,
        start=page.start,
        present=entry.present,
        swapped=entry.swapped,
        cached=cached,
        swap_type=entry.swap_type if entry.swapped else None,
        swap_offset=entry.swap_offset if entry.swapped else None,
        hole=hole,
    )
    return replace(proof, problem=out_of_state(proof, in_page_table=target.ram.in_page_table))


def _sector(extents: tuple[Extent, ...], page: Page) -> int | None:
    """First 512-byte sector of the page on the device that carries the file system; None: not on it."""
    found = parts(extents, page.gpa, page.gpa + PAGE)
    return found[0].physical >> 9 if found else None


def _torn_window(plan: Plan, extents: tuple[Extent, ...], page: Page) -> str:
    """A miss reads its window by one bio only if that lies in one piece (fs/ext4/readpage.c:ext4_mpage_readpages); what
    the plan leaves unallocated are holes between pieces, which a bio goes over if they follow on each other there."""
    if page.start is not PageStart.DROPPED:
        return ""
    first = max(POOL_GPA, page.gpa - READ_AROUND // 2 * PAGE)
    last = min(plan.guest.memory_mib << 20, page.gpa + READ_AROUND // 2 * PAGE)
    holes = {p.gpa for p in plan.pages if p.start is PageStart.UNTOUCHED}
    data = [gpa not in holes for gpa in range(first, last, PAGE)]
    due = sum(here and not before for before, here in pairwise([False, *data]))
    found = parts(extents, first, last)
    if len(found) != due:
        planned = "" if due == 1 else f", and not in the {due} that the plan's holes leave"
        return f"its read-around window lies in {len(found)} pieces on the device{planned}"
    if any(after.physical != before.at(before.end) for before, after in pairwise(found)):
        return "the pieces of its read-around window do not follow on each other on the device"
    return ""


def _folio_problem(target: Target, page: Page, flags: FrameFlags | None) -> str:
    """What is wrong with the folio of a populated page of a RAM file, "" if nothing or if the kernel does not tell."""
    if flags is None or page.start is not PageStart.POPULATED:
        return ""
    if flags.large:
        return "in a large folio"
    clean = target.plan.memory.share and not flags.dirty
    return "written back since, and so write-protected" if clean else ""


def _cached_strays(plan: Plan, cache: bytes) -> list[int]:
    """Addresses of pages that a read-ahead can reach, are not named by the plan, and are in the page cache."""
    named = {page.gpa for page in plan.pages}
    reached = windows(plan, RAM_FILE_DATA_BEFORE, RAM_FILE_DATA_AFTER, unused_below_pool(plan))
    return [
        gpa for first, last in reached for gpa in range(first, last, PAGE) if cache[gpa >> 12] & 1 and gpa not in named
    ]
