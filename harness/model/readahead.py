# SPDX-License-Identifier: GPL-2.0-or-later
"""Swap and file read-ahead: which pages a miss reads.

Swap: mm/swap_state.c:__swapin_nr_pages, swap_cluster_readahead, swap_vma_readahead, swap_cache_get_folio, the same in
5.10, 6.1 and 6.12.  File: mm/filemap.c:do_sync_mmap_readahead.  All pure: state in, state and window out.
Units: pages; swap slots are page offsets on the device, vpn are page numbers of virtual addresses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from harness.model.pages import HostPage

PMD_PAGES = 512
MAX_VMA_ORDER = 5  # SWAP_RA_ORDER_CEILING
MAX_VMA_HITS = 63  # SWAP_RA_HITS_MAX
MMAP_LOTSAMISS = 100
XA_CHUNK_SIZE = 64
FAULT_AROUND_PAGES = 16
"""mm/memory.c:fault_around_bytes, 64 KiB (6.12: fault_around_pages)."""


class Neighbours(Protocol):
    """What a read-ahead asks about the pages around the target."""

    def swap_entry_uncached(self, vpn: int) -> bool:
        """The PTE of this page is a swap entry whose page is not in the swap cache."""

    def slot_used_uncached(self, offset: int) -> bool:
        """The swap slot is in use and its page is not in the swap cache."""

    def file_uncached(self, index: int) -> bool:
        """The page of the file exists and is not in the page cache."""

    def file_place(self, index: int) -> int | None:
        """Where on the device the page of the file has written blocks, in pages, from anywhere; None: a hole or an
        unwritten extent, which is zero-filled."""

    def mapped_by(self, vpn: int) -> HostPage | None:
        """The page of the same VMA at this page number, as it is now; None: nothing of it is in memory."""

    def zero_on_swap(self, unit: str, number: int) -> bool | None:
        """The page at this "slot" or "vpn" held only zero bytes when it was written out; None: as the target did."""


class AllMissing:
    """Everything around is in the same state as a page that was swapped out or dropped with all its neighbours."""

    def swap_entry_uncached(self, vpn: int) -> bool:
        return vpn >= 0

    def slot_used_uncached(self, offset: int) -> bool:
        return offset > 0

    def file_uncached(self, index: int) -> bool:
        return index >= 0

    def file_place(self, index: int) -> int | None:
        return index if index >= 0 else None

    def mapped_by(self, vpn: int) -> HostPage | None:
        return None

    def zero_on_swap(self, unit: str, number: int) -> bool | None:
        return None


@dataclass(frozen=True, slots=True)
class ReadaheadState:
    """All words that read-ahead remembers.  Defaults: a host just booted, a VMA and a file just opened.

    Cluster mode (global): ``hits``, ``prev_offset``, ``last_window``.  VMA mode (per VMA): ``vma_addr`` (page number),
    ``vma_window``, ``vma_hits``.  File (struct file_ra_state): ``mmap_miss``; start, size, async_size, order.
    """

    hits: int = 4
    prev_offset: int = 0
    last_window: int = 0
    vma_addr: int = 0
    vma_window: int = 0
    vma_hits: int = 4
    mmap_miss: int = 0
    file_start: int = 0
    file_size: int = 0
    file_async: int = 0
    file_order: int = 0


@dataclass(frozen=True, slots=True)
class FolioOrders:
    """How mm/readahead.c:page_cache_ra_order chooses the order of a file's folios.

    ``large``: the file system has large folios; ``kept``: the order is kept in struct file_ra_state, two more with each
    marker that is hit, and such a window ends aligned (6.17).  Until then two are added for each window.
    ``last_scanned``: page_cache_next_miss answers with the last page that it has looked at, if all are cached.
    ``end_goes_on``: a marker just behind the last window is as good as the window's own (ondemand_readahead).
    """

    large: bool = False
    kept: bool = False
    last_scanned: bool = False
    end_goes_on: bool = True

    def of_window(self, before: int, size: int) -> int:
        """The largest order in a window of ``size`` pages, after one of order ``before``."""
        return min(before + 2, size.bit_length() - 1) if self.large and size > 0 else 0

    def of_read_around(self, size: int) -> int:
        """The same of the read-around of a miss."""
        return 0 if self.kept else self.of_window(0, size)


@dataclass(frozen=True, slots=True)
class Window:
    """``size``: the window as computed (1: a single-page read); ``pages``: what is read, in order, target included.

    ``flagged``: those that get PG_readahead (swap: all but the target; file: the one where the next window begins).
    Of a file: ``span``, the page numbers that are tried, cached or not; ``order``, that of the largest folios.
    """

    size: int
    pages: tuple[int, ...]
    target: int
    flagged: tuple[int, ...] = ()
    span: range = range(0)
    order: int = 0
    mark: int = -1


def swapin_nr_pages(prev: int, cur: int, hits: int, max_pages: int, prev_window: int) -> int:
    """mm/swap_state.c:__swapin_nr_pages: the size of the next window, in pages."""
    pages = hits + 2
    if pages == 2:
        if cur not in (prev + 1, prev - 1):
            pages = 1
    else:
        rounded = 4
        while rounded < pages:
            rounded <<= 1
        pages = rounded
    pages = min(pages, max_pages)
    # "Don't shrink readahead too fast": after the clamp, as in the source.
    return max(pages, prev_window // 2)


def cluster_window(
    state: ReadaheadState, offset: int, page_cluster: int, around: Neighbours, *, last_slot: int | None = None
) -> tuple[Window, ReadaheadState]:
    """swap_cluster_readahead: the aligned block of slots around ``offset``; also shmem, whatever the mode."""
    max_pages = 1 << page_cluster
    if max_pages <= 1:
        return Window(1, (offset,), offset), state
    size = swapin_nr_pages(state.prev_offset, offset, state.hits, max_pages, state.last_window)
    prev = state.prev_offset if state.hits else offset
    state = replace(state, hits=0, prev_offset=prev, last_window=size)
    if size == 1:
        return Window(1, (offset,), offset), state
    mask = size - 1
    first, last = offset & ~mask, offset | mask
    if first == 0:
        first = 1  # slot 0 holds the swap header
    if last_slot is not None:
        last = min(last, last_slot)
    pages = tuple(s for s in range(first, last + 1) if s == offset or around.slot_used_uncached(s))
    return Window(size, pages, offset, tuple(s for s in pages if s != offset)), state


def vma_window(
    state: ReadaheadState, vpn: int, page_cluster: int, around: Neighbours, *, vma_start: int, vma_end: int
) -> tuple[Window, ReadaheadState]:
    """swap_vma_readahead: pages around the address, clipped to the VMA [start, end) and to the page table (2 MiB)."""
    max_pages = 1 << min(page_cluster, MAX_VMA_ORDER)
    if max_pages == 1:
        return Window(1, (vpn,), vpn), state
    prev = state.vma_addr
    size = swapin_nr_pages(prev, vpn, state.vma_hits, max_pages, state.vma_window)
    state = replace(state, vma_addr=vpn, vma_window=size, vma_hits=0)
    if size == 1:
        return Window(1, (vpn,), vpn), state
    if vpn == prev + 1:
        first, last = vpn, vpn + size
    elif vpn == prev - 1:
        first, last = vpn - size + 1, vpn + 1
    else:
        first = vpn - (size - 1) // 2
        last = first + size
    pmd = vpn & ~(PMD_PAGES - 1)
    first, last = max(first, vma_start, pmd), min(last, vma_end, pmd + PMD_PAGES)
    pages = tuple(p for p in range(first, last) if p == vpn or around.swap_entry_uncached(p))
    return Window(size, pages, vpn, tuple(p for p in pages if p != vpn)), state


def cache_hit(state: ReadaheadState, *, vpn: int | None, flagged: bool) -> ReadaheadState:
    """swap_cache_get_folio found the page: hits and, in VMA mode, the address move.

    :param vpn: the virtual page number in VMA mode; None in cluster mode (and for shmem).
    :param flagged: the folio carried PG_readahead, which the lookup clears.
    """
    if vpn is not None:
        state = replace(state, vma_addr=vpn, vma_hits=min(state.vma_hits + flagged, MAX_VMA_HITS))
    elif flagged:
        state = replace(state, hits=state.hits + 1)
    return state


def file_window(
    state: ReadaheadState,
    index: int,
    around: Neighbours,
    *,
    ra_pages: int,
    rand_read: bool,
    seq_read: bool,
    last_index: int | None = None,
    order: int = 0,
    around_index: int | None = None,
) -> tuple[Window, ReadaheadState]:
    """do_sync_mmap_readahead: the read-around of a page-cache miss; a window of size 0 reads nothing.

    :param last_index: the last page of the file, past which do_page_cache_ra reads nothing; None: far away.
    :param order: of the largest folios that it may bring.
    :param around_index: the page around which a read-around is chosen; None: the one that is missed.
    """
    nothing = Window(0, (), index)
    if rand_read or ra_pages == 0:
        return nothing, state
    if not seq_read:
        state = replace(state, mmap_miss=min(state.mmap_miss + 1, MMAP_LOTSAMISS * 10))
        if state.mmap_miss > MMAP_LOTSAMISS:
            return nothing, state
    first = index if seq_read else max(0, (index if around_index is None else around_index) - ra_pages // 2)
    size = ra_pages if last_index is None else min(ra_pages, last_index - first + 1)
    pages = tuple(p for p in range(first, first + size) if p == index or around.file_uncached(p))
    if seq_read:  # page_cache_sync_ra: a standalone read, as is, without a mark, and file->f_ra stays as it is
        return Window(ra_pages, pages, index, (), range(first, first + size), 0), state
    ahead = ra_pages // 4
    mark = first + size - ahead  # page_cache_ra_unbounded: nr_to_read - lookahead_size
    state = replace(state, file_start=first, file_size=ra_pages, file_async=ahead, file_order=0)
    flagged = tuple(p for p in pages if p == mark)
    return Window(ra_pages, pages, index, flagged, range(first, first + size), order, mark), state


def next_ra_size(size: int, ra_pages: int) -> int:
    """mm/readahead.c:get_next_ra_size: twice as large, from less than a sixteenth of the largest four times."""
    return min(4 * size if size < ra_pages // 16 else 2 * size, ra_pages)


def file_marker_hit(
    state: ReadaheadState,
    index: int,
    around: Neighbours,
    *,
    ra_pages: int,
    last_index: int | None = None,
    folio_order: int = 0,
    next_folio_start: int | None = None,
    orders: FolioOrders | None = None,
) -> tuple[Window, ReadaheadState]:
    """page_cache_async_ra: a hit on PG_readahead reads the next window, larger up to ``ra_pages``.

    :param last_index: the last page of the file; None: far away.
    :param folio_order: of the folio that was hit; ``orders``: how the kernel chooses those of the window.
    :param next_folio_start: the first page of the folio of page ``index`` + 1; None: of that one alone.
    """
    orders, ahead = orders or FolioOrders(), 0
    expected = state.file_start + state.file_size - state.file_async
    expected &= -(1 << folio_order)
    behind = orders.end_goes_on and index == state.file_start + state.file_size
    if state.file_size and (index == expected or behind):
        first = state.file_start + state.file_size
        size = next_ra_size(state.file_size, ra_pages)
        if behind:  # it hits the mark that it would make: the next window is merged into this one
            more = next_ra_size(size, ra_pages)
            size, ahead = (size + more, more) if size + more <= ra_pages else (ra_pages, ra_pages >> 1)
    else:
        # A marker of somebody else's window: what comes after the pages that are cached from here on.
        found = next_miss(around, index + 1, ra_pages, last_index=last_index, folio_start=next_folio_start)
        if found is None and not orders.last_scanned:
            return Window(0, (), index), state
        first, size = index + ra_pages if found is None else found, ra_pages
    order = state.file_order
    if orders.kept:
        align = min(1 << order + 2, ra_pages & -ra_pages)
        aligned_end = (first + size) & -align
        size = aligned_end - first if aligned_end > first else size
    order, ahead = orders.of_window(order if orders.kept else folio_order, size), ahead or size
    state = replace(state, file_start=first, file_size=size, file_async=ahead, file_order=order)
    end = first + size if last_index is None else min(first + size, last_index + 1)
    pages = tuple(p for p in range(first, end) if around.file_uncached(p))
    mark = first + size - ahead
    return Window(size, pages, index, tuple(p for p in pages if p == mark), range(first, end), order, mark), state


def next_miss(
    around: Neighbours, index: int, scan: int, *, last_index: int | None, folio_start: int | None = None
) -> int | None:
    """mm/filemap.c:page_cache_next_miss: the first page from ``index`` on that is not cached, of ``scan``; None: none.

    In the middle of a large folio the answer is too high: xas_load (lib/xarray.c) goes to the slot of the folio's first
    page and leaves xa_index where it is, and xas_next moves both on by one, until a node of 64 slots ends.
    """
    slot = index if folio_start is None or around.file_uncached(index) else folio_start
    for answer in range(index, index + scan):
        if around.file_uncached(slot) or (last_index is not None and slot > last_index):
            return answer
        slot = answer + 1 if slot % XA_CHUNK_SIZE == XA_CHUNK_SIZE - 1 else slot + 1
    return None


def fault_around_range(vpn: int, *, vma_start: int, vma_end: int, pages: int = FAULT_AROUND_PAGES) -> range:
    """do_fault_around: the aligned block of ``pages`` around the address, clipped to the VMA and the page table."""
    first = vpn - vpn % pages
    pmd_end = vpn - vpn % PMD_PAGES + PMD_PAGES
    return range(max(first, vma_start), min(first + pages, vma_end, pmd_end))


def fault_around_hits(state: ReadaheadState, cached: int) -> ReadaheadState:
    """filemap_map_pages: every page of the block that is cached and could be mapped takes a miss back, also those that
    are mapped already (6.12 too, unless the folio is of the workingset: refaulted after a reclaim).  From 7.2 on only
    the page that was touched does."""
    return replace(state, mmap_miss=max(0, state.mmap_miss - cached))


def file_hit(state: ReadaheadState, *, tried: bool) -> ReadaheadState:
    """do_async_mmap_readahead: a page-cache hit takes a miss back, except on a retry (FAULT_FLAG_TRIED)."""
    return state if tried else replace(state, mmap_miss=max(0, state.mmap_miss - 1))


def fixed_window(offset: int, page_cluster: int, around: Neighbours) -> Window:
    """2.6.3x valid_swaphandles: the used slots next to the target within its aligned block of 2^page_cluster."""
    size = 1 << page_cluster
    base = offset & ~(size - 1)
    first, last = offset, offset
    while last + 1 < base + size and around.slot_used_uncached(last + 1):
        last += 1
    while first - 1 >= max(base, 1) and around.slot_used_uncached(first - 1):
        first -= 1
    return Window(size, tuple(range(first, last + 1)), offset)
