# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as reached, state by state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from harness.agent.pages.extents import Extent
from harness.agent.pages.guest_memory import GuestMemory
from harness.agent.pages.page_flags import FrameFlags
from harness.agent.pages.pagemap import PageEntry
from harness.agent.pages.pageout import Target
from harness.agent.pages.prove import _cached_strays, _folio_problem, _torn_window, sectors, with_places
from harness.agent.ram.choose import ram_of
from harness.agent.ram.file import unused_below_pool
from harness.contract.capture import PageProof, Precondition
from harness.contract.plan import POOL_GPA, Backing, Guest, Memory, Page, PageStart, Plan, Swap
from harness.contract.probe_abi import page_word

PRESENT = PageEntry(True, False, 0, 0, False)
SWAPPED = PageEntry(False, True, 0, 7, False)
NOTHING = PageEntry(False, False, 0, 0, False)


def _window(extents: tuple[Extent, ...], page: Page) -> str:
    plan = Plan("S", "t", 1, Guest(memory_mib=32), Memory(Backing.FILE), Swap(), (page,), ())
    return _torn_window(plan, extents, page)


def test_a_torn_window_is_no_precondition() -> None:
    """One piece from the pool's beginning, then one that lies elsewhere on the device from page 64 on."""
    pool, second = POOL_GPA, POOL_GPA + 64 * 4096
    extents = (Extent(pool, second, 0), Extent(second, second + 64 * 4096, 1 << 30))
    whole = [0, 16, 48, 80, 112]
    torn = [49, 63, 64, 79]
    dropped = {n: _window(extents, Page(pool + n * 4096, PageStart.DROPPED, "f")) for n in (*whole, *torn)}
    assert [n for n, text in dropped.items() if text] == torn
    assert "2 pieces" in dropped[64]
    assert not _window(extents, Page(second, PageStart.POPULATED, "f"))


def test_holes_of_the_plan_are_between_pieces() -> None:
    pool = POOL_GPA
    pages = (
        Page(pool, PageStart.DROPPED, "d[0]"), Page(pool + 4096, PageStart.UNTOUCHED, "h[0]"),
        Page(pool + 2 * 4096, PageStart.POPULATED, "p[0]"), Page(pool + 3 * 4096, PageStart.UNTOUCHED, "h[1]"),
    )  # fmt: skip
    plan = Plan("S", "t", 1, Guest(memory_mib=32), Memory(Backing.FILE), Swap(), pages, ())
    around = [Extent(pool, pool + 4096, 0), Extent(pool + 2 * 4096, pool + 3 * 4096, 4096)]
    rest = Extent(pool + 4 * 4096, pool + 64 * 4096, 2 * 4096)
    assert not _torn_window(plan, (*around, rest), pages[0])
    apart = replace(rest, physical=3 * 4096)
    assert "do not follow on each other" in _torn_window(plan, (*around, apart), pages[0])
    torn = (
        *around,
        Extent(pool + 4 * 4096, pool + 8 * 4096, 4 * 4096),
        Extent(pool + 8 * 4096, pool + 64 * 4096, 1 << 30),
    )
    assert "lies in 4 pieces on the device, and not in the 3" in _torn_window(plan, torn, pages[0])


CLEAN, DIRTY, LARGE = (FrameFlags(False, False, False), FrameFlags(True, False, False), FrameFlags(True, False, True))


@pytest.mark.parametrize(
    ("start", "share", "flags", "problem"),
    [
        (PageStart.POPULATED, True, DIRTY, ""),
        (PageStart.POPULATED, True, CLEAN, "written back since, and so write-protected"),
        (PageStart.POPULATED, False, CLEAN, ""),
        (PageStart.POPULATED, False, LARGE, "in a large folio"),
        (PageStart.POPULATED, True, None, ""),
        (PageStart.DROPPED, True, LARGE, ""),
    ],
)
def test_a_populated_page_of_a_file_has_a_folio_of_its_own(
    start: PageStart, share: bool, flags: FrameFlags | None, problem: str
) -> None:
    page = Page(POOL_GPA, start, "f")
    plan = Plan("S", "t", 1, Guest(memory_mib=32), Memory(Backing.FILE, share), Swap(), (page,), ())
    memory = GuestMemory.__new__(GuestMemory)
    assert _folio_problem(Target(plan, 0, memory, None, ram_of(Backing.FILE), -1), page, flags) == problem


def test_a_page_that_read_ahead_can_reach_is_no_stray_in_the_page_cache() -> None:
    page = Page(POOL_GPA + 64 * 4096, PageStart.DROPPED, "f")
    plan = Plan("S", "t", 1, Guest(memory_mib=32), Memory(Backing.FILE), Swap(), (page,), ())
    cache = bytearray(32 << 8)
    cache[page.gpa >> 12] = cache[0] = cache[-1] = 1
    assert not _cached_strays(plan, bytes(cache))
    cache[(page.gpa >> 12) + 1] = 1
    assert _cached_strays(plan, bytes(cache)) == [page.gpa + 4096]


@pytest.mark.parametrize(("vcpus", "first"), [(1, 0xC00000), (8, 0xC00000), (9, 0xE00000), (16, 0xE00000)])
def test_what_the_probe_uses_below_the_pool_is_left_alone_in_whole_huge_pages(vcpus: int, first: int) -> None:
    plan = Plan("S", "t", 1, Guest(vcpus=vcpus, memory_mib=32), Memory(Backing.FILE), Swap(), (), ())
    assert unused_below_pool(plan) == first
    assert unused_below_pool(replace(plan, guest=replace(plan.guest, vcpus=17))) == POOL_GPA


@pytest.mark.parametrize(("below", "vcpus", "reached"), [(1, 1, True), (16, 16, True), (17, 1, False), (1, 17, False)])
def test_read_around_reaches_below_the_pool(below: int, vcpus: int, reached: bool) -> None:
    """As far as the probe's own memory leaves 2 MiB alone: what lies with that in one folio cannot be dropped."""
    page = Page(POOL_GPA, PageStart.DROPPED, "f")
    plan = Plan("S", "t", 1, Guest(vcpus=vcpus, memory_mib=32), Memory(Backing.FILE), Swap(), (page,), ())
    cache = bytearray(plan.guest.memory_mib << 8)
    cache[(POOL_GPA >> 12) - below] = 1
    assert bool(_cached_strays(plan, bytes(cache))) is reached


@pytest.mark.parametrize("backing", [Backing.MEMFD, Backing.ANON])
def test_the_device_tells_where_shmem_lies(backing: Backing) -> None:
    starts = (PageStart.SWAPPED, PageStart.SWAPPED, PageStart.POPULATED)
    pages = [PageProof(POOL_GPA + n * 4096, f"f[{n}]", start, False, False, False) for n, start in enumerate(starts)]
    plan = Plan("S999", "", 7, Guest(), Memory(backing), Swap(), (), ())
    asked: list[int] = []

    def find(words: Sequence[int]) -> Mapping[int, int]:
        asked.extend(words)
        return {page_word(POOL_GPA, 7): 5 * 4096}

    proof = with_places(Precondition(True, "", {}, (), {p.gpa: p for p in pages}), plan, find)
    shmem = backing is Backing.MEMFD
    assert asked == ([page_word(POOL_GPA, 7), page_word(POOL_GPA + 4096, 7)] if shmem else [])
    assert [p.swap_offset for p in proof.pages.values()] == [5 if shmem else None, None, None]
    assert sectors(proof) == ({POOL_GPA: 40} if shmem else {})
