# SPDX-License-Identifier: GPL-2.0-or-later
"""Read-ahead windows: section A.5 and A.6, by figures that the specification derives and by properties."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.readahead import (
    MMAP_LOTSAMISS,
    AllMissing,
    FolioOrders,
    ReadaheadState,
    Window,
    cache_hit,
    cluster_window,
    fault_around_hits,
    fault_around_range,
    file_hit,
    file_marker_hit,
    file_window,
    fixed_window,
    next_miss,
    next_ra_size,
    swapin_nr_pages,
    vma_window,
)

BASE = 0x7F0000000  # a multiple of 512: a page table boundary
END = BASE + 4 * 512


@dataclass
class Only:
    """Neighbours of which only some are missing."""

    missing: set[int] = field(default_factory=set)

    def swap_entry_uncached(self, vpn: int) -> bool:
        return vpn in self.missing

    slot_used_uncached = file_uncached = swap_entry_uncached


def touch(state: ReadaheadState, vpn: int, cluster: int, *, end: int = END) -> tuple[Window, ReadaheadState]:
    return vma_window(state, vpn, cluster, AllMissing(), vma_start=BASE, vma_end=end)


# --- figures of A.5 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cluster", "sizes"), [(3, [8, 4, 2, 1, 1]), (2, [4, 2, 1, 1]), (1, [2, 1, 1]), (0, [1, 1])])
def test_isolated_touches_decay(cluster: int, sizes: list[int]) -> None:
    """No hits, never adjacent: both modes, from the fresh state."""
    vma = glob = ReadaheadState()
    for i, size in enumerate(sizes):
        window, vma = touch(vma, BASE + 64 * (i + 1), cluster)
        assert window.size == size
        window, glob = cluster_window(glob, 4096 + 64 * i, cluster, AllMissing())
        assert window.size == size


def test_pages_of_cluster_order_0_touch_no_state() -> None:
    state = ReadaheadState(hits=2, vma_hits=2)
    assert cluster_window(state, 77, 0, AllMissing()) == (Window(1, (77,), 77), state)
    assert touch(state, BASE + 5, 0) == (Window(1, (BASE + 5,), BASE + 5), state)


def test_order_limits() -> None:
    """VMA mode is limited to 2^5 pages, cluster mode is not."""
    assert touch(ReadaheadState(vma_hits=60), BASE + 100, 7)[0].size == 32
    assert cluster_window(ReadaheadState(hits=120), 5000, 7, AllMissing())[0].size == 128


@pytest.mark.parametrize(
    ("previous", "first", "last"),
    [(-1, 0, 4), (1, -3, 1), (100, -1, 3)],
    ids=["forwards", "backwards", "elsewhere"],
)
def test_direction(previous: int, first: int, last: int) -> None:
    """cur == prev+1: [cur, cur+win); cur == prev-1: [cur-win+1, cur+1); else cur-(win-1)//2 and win pages."""
    cur = BASE + 256
    window, _ = touch(ReadaheadState(vma_addr=cur + previous, vma_window=0, vma_hits=2), cur, 3)
    assert window.size == 4
    assert window.pages == tuple(range(cur + first, cur + last))


def test_adjacent_touch_without_hits_reads_two() -> None:
    window, _ = touch(ReadaheadState(vma_addr=BASE + 9, vma_window=1, vma_hits=0), BASE + 10, 3)
    assert window.pages == (BASE + 10, BASE + 11)


def test_clipped_to_page_table_and_vma() -> None:
    fresh = ReadaheadState()
    assert touch(fresh, BASE + 512, 3)[0].pages[0] == BASE + 512
    assert touch(fresh, BASE + 511, 3)[0].pages[-1] == BASE + 511
    assert touch(fresh, BASE + 20, 3, end=BASE + 22)[0].pages == tuple(range(BASE + 17, BASE + 22))


def test_pair_recipe_keeps_the_window() -> None:
    """A.5, pc=1: after each async fault at f a hit on the flagged f+1 keeps the window at two."""
    state = ReadaheadState()
    for i in range(1, 20):
        f = BASE + 64 * i
        window, state = touch(state, f, 1)
        assert window.pages == (f, f + 1)
        assert window.flagged == (f + 1,)
        state = cache_hit(state, vpn=f + 1, flagged=True)


def test_hits() -> None:
    state = ReadaheadState(hits=0, vma_hits=0, vma_addr=5)
    assert cache_hit(state, vpn=9, flagged=False) == ReadaheadState(hits=0, vma_hits=0, vma_addr=9)
    assert cache_hit(state, vpn=9, flagged=True) == ReadaheadState(hits=0, vma_hits=1, vma_addr=9)
    assert cache_hit(state, vpn=None, flagged=True) == ReadaheadState(hits=1, vma_hits=0, vma_addr=5)
    assert cache_hit(state, vpn=None, flagged=False) == state
    assert cache_hit(ReadaheadState(vma_hits=63), vpn=1, flagged=True).vma_hits == 63


def test_cluster_state() -> None:
    """hits are set to 0 when read; prev_offset moves only when they were 0."""
    window, state = cluster_window(ReadaheadState(hits=4, prev_offset=9), 100, 3, AllMissing())
    assert window.pages == tuple(range(96, 104))
    assert (state.hits, state.prev_offset, state.last_window) == (0, 9, 8)
    _, state = cluster_window(state, 200, 3, AllMissing())
    assert (state.hits, state.prev_offset, state.last_window) == (0, 200, 4)


def test_cluster_skips_header_free_slots_and_the_end() -> None:
    window, _ = cluster_window(ReadaheadState(), 3, 3, AllMissing())
    assert window.pages == tuple(range(1, 8))
    window, _ = cluster_window(ReadaheadState(), 3, 3, Only({0, 1, 2}))
    assert window.pages == (1, 2, 3), "slot 0 is the header, whatever its use count says"
    window, _ = cluster_window(ReadaheadState(), 1001, 3, AllMissing(), last_slot=1002)
    assert window.pages == (1000, 1001, 1002)
    window, _ = cluster_window(ReadaheadState(), 1001, 3, Only({1004}))
    assert window.pages == (1001, 1004)
    assert window.flagged == (1004,)


def test_fixed_window_of_2010() -> None:
    """Used slots next to the target within its aligned block; slot 0 holds the header."""
    assert fixed_window(13, 3, AllMissing()).pages == tuple(range(8, 16))
    assert fixed_window(2, 3, AllMissing()).pages == tuple(range(1, 8))
    assert fixed_window(13, 3, Only({12, 14, 10})).pages == (12, 13, 14)


# --- section A.6 ----------------------------------------------------------------------------------------------------


def read(state: ReadaheadState, index: int, **kw: bool) -> tuple[Window, ReadaheadState]:
    flags = {"rand_read": False, "seq_read": False} | kw
    return file_window(state, index, AllMissing(), ra_pages=32, **flags)


def test_read_around() -> None:
    window, state = read(ReadaheadState(), 100)
    assert window.pages == tuple(range(84, 116))
    assert window.flagged == (108,)
    assert state.mmap_miss == 1
    assert read(ReadaheadState(), 3)[0].pages == tuple(range(32))


def test_read_around_is_off() -> None:
    for window, state in (
        read(ReadaheadState(), 100, rand_read=True),
        file_window(ReadaheadState(), 100, AllMissing(), ra_pages=0, rand_read=False, seq_read=False),
    ):
        assert window.pages == () and state == ReadaheadState()


def test_hundred_isolated_misses_stop_read_around() -> None:
    """Without hits in between; a hit takes one back, a retry does not."""
    state = ReadaheadState()
    for i in range(MMAP_LOTSAMISS):
        window, state = read(state, 1000 * (i + 1))
        assert window.size == 32
    window, state = read(state, 500_000)
    assert window.size == 0
    state = file_hit(file_hit(state, tried=True), tried=False)
    assert state.mmap_miss == MMAP_LOTSAMISS
    assert read(file_hit(state, tried=False), 600_000)[0].size == 32
    assert file_hit(ReadaheadState(), tried=False).mmap_miss == 0


def test_marker_hits() -> None:
    """The window that follows, up to ra_pages; markers of another window start behind what is cached."""
    _, state = read(ReadaheadState(), 100)
    window, after = file_marker_hit(state, 108, AllMissing(), ra_pages=32)
    assert window.pages == tuple(range(116, 148)) and window.flagged == (116,)
    window, _ = file_marker_hit(after, 116, AllMissing(), ra_pages=32)
    assert window.pages == tuple(range(148, 180))
    window, _ = file_marker_hit(state, 500, Only(set(range(503, 600))), ra_pages=32)
    assert window.pages == tuple(range(503, 535))
    window, _ = file_marker_hit(state, 108, Only(), ra_pages=32)
    assert window.pages == ()


def test_sequential_advice_reads_forwards_and_counts_no_miss() -> None:
    window, state = read(ReadaheadState(), 100, seq_read=True)
    assert window.pages == tuple(range(100, 132)) and state == ReadaheadState()
    assert window.flagged == ()


# --- properties -----------------------------------------------------------------------------------------------------

POWERS = st.sampled_from([0, 1, 2, 4, 8, 16, 32])


SLOTS = st.integers(0, 4096)


@given(prev=SLOTS, cur=SLOTS, hits=st.integers(0, 63), order=st.integers(1, 5), last=POWERS)
def test_nr_pages(prev: int, cur: int, hits: int, order: int, last: int) -> None:
    n = swapin_nr_pages(prev, cur, hits, 1 << order, last)
    assert n & (n - 1) == 0
    assert last // 2 <= n <= max(1 << order, last // 2)
    assert n == max(min(reference(prev, cur, hits), 1 << order), last // 2)


def reference(prev: int, cur: int, hits: int) -> int:
    """The same rule said in another way: by cases of hits."""
    if hits == 0:
        return 2 if abs(cur - prev) == 1 else 1
    return next(p for p in (4, 8, 16, 32, 64, 128) if p >= hits + 2)


STATES = st.builds(
    ReadaheadState, hits=st.integers(0, 20), prev_offset=st.integers(0, 4000), last_window=POWERS,
    vma_addr=st.integers(BASE, END - 1), vma_window=POWERS, vma_hits=st.integers(0, 63),
)  # fmt: skip


@given(state=STATES, page=st.integers(BASE, END - 1), cluster=st.integers(0, 6),
       missing=st.sets(st.integers(BASE, END - 1), max_size=40))  # fmt: skip
def test_vma_window_properties(state: ReadaheadState, page: int, cluster: int, missing: set[int]) -> None:
    window, after = vma_window(state, page, cluster, Only(missing), vma_start=BASE, vma_end=END)
    assert page in window.pages and page not in window.flagged
    assert len(window.pages) <= window.size
    assert set(window.pages) <= missing | {page}
    assert all(BASE <= p < END and p // 512 == page // 512 for p in window.pages)
    assert max(window.pages) - min(window.pages) < window.size
    if cluster:
        assert (after.vma_addr, after.vma_window, after.vma_hits) == (page, window.size, 0)
    assert (after.hits, after.prev_offset) == (state.hits, state.prev_offset)


@given(state=STATES, slot=st.integers(1, 4000), cluster=st.integers(0, 6),
       used=st.sets(st.integers(1, 4100), max_size=40))  # fmt: skip
def test_cluster_window_properties(state: ReadaheadState, slot: int, cluster: int, used: set[int]) -> None:
    window, after = cluster_window(state, slot, cluster, Only(used))
    assert slot in window.pages and slot not in window.flagged and 0 not in window.pages
    assert set(window.pages) <= used | {slot}
    assert {p // window.size for p in window.pages} == {slot // window.size}
    assert (after.vma_addr, after.vma_hits) == (state.vma_addr, state.vma_hits)


@given(state=STATES, start=st.integers(0, 60))
def test_without_hits_and_neighbours_the_window_ends_at_one(state: ReadaheadState, start: int) -> None:
    """One halving per isolated fault: whatever was before, from 32 pages down it takes six."""
    window, state = touch(state, BASE + start, 5)
    for step in range(1, 7):
        previous = window.size
        window, state = touch(state, BASE + start + 64 * step, 5)
        assert window.size == max(1, previous // 2)
    assert window.size == 1


def test_file_windows_end_with_the_file() -> None:
    """do_page_cache_ra clips to the last page, and the marker moves with it (nr_to_read - lookahead_size)."""
    window, state = file_window(
        ReadaheadState(), 100, AllMissing(), ra_pages=32, rand_read=False, seq_read=False, last_index=109
    )
    assert window.pages == tuple(range(84, 110)) and window.flagged == (102,)
    ahead, _ = file_marker_hit(state, 102, Only(), ra_pages=32, last_index=109)
    assert ahead.pages == ()
    clipped, _ = file_marker_hit(ReadaheadState(), 50, Only(set(range(52, 60))), ra_pages=32, last_index=55)
    assert clipped.pages == (52, 53, 54, 55)


def test_a_foreign_marker_without_a_gap_behind_it_reads_nothing() -> None:
    """ondemand_readahead: page_cache_next_miss within max_pages found none."""
    state = ReadaheadState(mmap_miss=3)
    assert file_marker_hit(state, 500, Only(), ra_pages=32) == (Window(0, (), 500), state)


def test_fault_around_block_is_aligned_and_clipped() -> None:
    assert fault_around_range(BASE + 21, vma_start=BASE, vma_end=END) == range(BASE + 16, BASE + 32)
    assert fault_around_range(BASE + 21, vma_start=BASE + 20, vma_end=BASE + 24) == range(BASE + 20, BASE + 24)
    assert fault_around_hits(ReadaheadState(mmap_miss=9), 4).mmap_miss == 5
    assert fault_around_hits(ReadaheadState(mmap_miss=3), 16).mmap_miss == 0


def test_a_window_of_a_marker_ends_aligned_from_6_17_on() -> None:
    state = ReadaheadState(file_start=85, file_size=32, file_async=8)
    kept = FolioOrders(large=True, kept=True)
    window, after = file_marker_hit(state, 109, AllMissing(), ra_pages=32, orders=kept)
    assert window.span == range(117, 148) and window.order == 2
    assert (after.file_size, after.file_order) == (31, 2)
    window, after = file_marker_hit(after, 117, AllMissing(), ra_pages=32, orders=kept, folio_order=0)
    assert window.span == range(148, 176) and window.order == 4
    small, after = file_marker_hit(state, 109, AllMissing(), ra_pages=32, orders=FolioOrders(kept=True))
    assert small.span == range(117, 148) and (small.order, after.file_order) == (0, 0)


def test_a_window_of_one_page_is_followed_by_four() -> None:
    """get_next_ra_size, seen on 7.3: a foreign marker behind windows of order 3 and more, whose window ends aligned to
    32 just behind its first page."""
    kept = FolioOrders(large=True, kept=True)
    state = ReadaheadState(file_start=128, file_size=32, file_async=32, file_order=5)
    window, after = file_marker_hit(state, 311, Only(set(range(319, 600))), ra_pages=32, orders=kept)
    assert (window.pages, after.file_size, after.file_order) == ((319,), 1, 0)
    window, after = file_marker_hit(after, 319, AllMissing(), ra_pages=32, orders=kept)
    assert window.pages == (320, 321, 322, 323)
    assert [next_ra_size(size, 32) for size in (1, 2, 16, 17, 32)] == [4, 4, 32, 32, 32]


def test_up_to_6_16_each_window_has_the_order_of_the_folio_that_was_hit_and_two_more() -> None:
    old = FolioOrders(large=True)
    assert (old.of_read_around(32), FolioOrders(large=True, kept=True).of_read_around(32)) == (2, 0)
    state = ReadaheadState(file_start=85, file_size=32, file_async=8)
    window, _ = file_marker_hit(state, 108, AllMissing(), ra_pages=32, orders=old, folio_order=2)
    assert window.span == range(117, 149) and window.order == 4
    assert FolioOrders().of_read_around(32) == 0


def test_the_next_miss_from_the_middle_of_a_large_folio() -> None:
    """xa_index is three ahead of the slot that is looked at, until the node of 64 slots ends (lib/xarray.c)."""
    missing = Only({44, 45, 72})
    assert next_miss(missing, 35, 32, last_index=None) == 44
    assert next_miss(missing, 35, 32, last_index=None, folio_start=32) == 47
    assert next_miss(missing, 51, 32, last_index=None, folio_start=48) == 72
    assert next_miss(missing, 46, 20, last_index=None) is None
    assert next_miss(missing, 44, 20, last_index=None, folio_start=44) == 44


def test_where_all_is_cached_up_to_6_1_the_last_page_is_the_answer() -> None:
    state, behind = ReadaheadState(file_start=500, file_size=32, file_async=8), Only(set(range(160, 300)))
    assert file_marker_hit(state, 100, behind, ra_pages=32)[0] == Window(0, (), 100)
    window, _ = file_marker_hit(
        state, 100, Only(set(range(140, 300))), ra_pages=32, orders=FolioOrders(last_scanned=True)
    )
    assert window.pages == tuple(range(140, 164)) and window.span == range(132, 164)
