# SPDX-License-Identifier: GPL-2.0-or-later
"""Folios and bios of a file's read-ahead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.model.file_folios import bring
from harness.model.readahead import Window


def window(first: int, last: int, order: int, cached: set[int] = frozenset(), mark: int = -1) -> Window:  # type: ignore[assignment]
    span = range(first, last)
    pages = tuple(p for p in span if p not in cached)
    return Window(len(span), pages, first, (), span, order, mark)


def test_folios_are_aligned_and_end_with_the_window() -> None:
    folios = bring(window(33, 47, 2, mark=33), lambda p: p)
    assert folios.orders == {34: 1, 35: 1} | dict.fromkeys(range(36, 44), 2) | {44: 1, 45: 1}
    assert folios.bios == (tuple(range(33, 47)),)
    assert folios.flagged == (33,)


def test_the_mark_is_of_its_folio() -> None:
    assert bring(window(32, 64, 2, mark=46), lambda p: p).flagged == (44, 45, 46, 47)


def test_behind_a_folio_that_is_in_the_way_come_single_pages() -> None:
    """page_cache_ra_order ends at -EEXIST; do_page_cache_ra reads the rest, by bios of its own."""
    folios = bring(window(32, 48, 2, cached={42}), lambda p: p)
    assert folios.orders == dict.fromkeys(range(32, 40), 2)
    assert folios.bios == (tuple(range(32, 40)), (40, 41), tuple(range(43, 48)))


def test_holes_of_a_large_folio() -> None:
    blocks = {*range(32, 36), 36, 37, 40, 42, 43}
    folios = bring(window(32, 48, 2), lambda p: p if p in blocks else None)
    assert folios.bios == ((32, 33, 34, 35, 36, 37), (40,), (42,), (43,))
    assert folios.riders == (38, 39, 41)
    assert folios.zeroed == (44, 45, 46, 47)
    assert folios.read == (32, 33, 34, 35, 36, 37, 40, 42, 43)


def test_single_pages_are_read_in_runs() -> None:
    folios = bring(window(32, 40, 0, cached={35}), lambda p: p if p != 38 else None)
    assert folios.bios == ((32, 33, 34), (36, 37), (39,))
    assert (folios.zeroed, folios.riders, folios.orders) == ((38,), (), {})


def test_a_hole_ends_no_bio_if_what_is_behind_it_is_next_on_the_device() -> None:
    next_to_it = {36: 100, 37: 101, 39: 102}
    assert bring(window(36, 40, 0), next_to_it.get).bios == ((36, 37, 39),)
    assert bring(window(36, 40, 0), {**next_to_it, 39: 103}.get).bios == ((36, 37), (39,))


@given(
    st.integers(0, 200),
    st.integers(1, 40),
    st.integers(0, 5),
    st.sets(st.integers(0, 240)),
    st.sets(st.integers(0, 240)),
)
def test_every_page_that_is_not_cached_comes_once(
    first: int, size: int, order: int, cached: set[int], holes: set[int]
) -> None:
    tried = window(first, first + size, order, cached)
    folios = bring(tried, lambda p: None if p in holes else p)
    assert sorted((*folios.read, *folios.riders, *folios.zeroed)) == sorted(tried.pages)
    assert not holes & set(folios.read) and holes.issuperset((*folios.riders, *folios.zeroed))
    for page, folio_order in folios.orders.items():
        start = page & -(1 << folio_order)
        assert all(folios.orders[p] == folio_order for p in range(start, start + (1 << folio_order)))
        assert 0 < folio_order <= order
