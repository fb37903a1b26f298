# SPDX-License-Identifier: GPL-2.0-or-later
"""The folios that a read-ahead of a file brings, and the bios that fill them.

mm/readahead.c:page_cache_ra_order and page_cache_ra_unbounded, fs/ext4/readpage.c:ext4_mpage_readpages,
fs/buffer.c:block_read_full_folio, as in 6.12, 7.2 and 7.3.  Pure; units are pages of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.model.readahead import Window


@dataclass(frozen=True, slots=True)
class FileFolios:
    """What becomes of a window.

    ``bios``: the pages of each, in order.  ``riders``: pages without blocks that are locked until the read of others of
    their folio has ended; ``zeroed``: those of folios without any block, uptodate and unlocked at once.  ``flagged``:
    pages of folios with PG_readahead; ``orders``: of the pages of large folios.
    """

    bios: tuple[tuple[int, ...], ...]
    riders: tuple[int, ...] = ()
    zeroed: tuple[int, ...] = ()
    flagged: tuple[int, ...] = ()
    orders: Mapping[int, int] = field(default_factory=dict)

    @property
    def read(self) -> tuple[int, ...]:
        """The pages that are read from the device, in order."""
        return tuple(page for bio in self.bios for page in bio)


def bring(window: Window, place: Callable[[int], int | None]) -> FileFolios:
    """Allocate the window's folios and submit their reads; ``window.pages`` are those that are not cached.

    A page without blocks ends no bio, if what is behind it in the file is next on the device.

    :param place: Neighbours.file_place.
    """
    batches = _batches(window)
    bios: list[tuple[int, ...]] = []
    riders: list[int] = []
    zeroed: list[int] = []
    for batch in batches:
        bio: list[int] = []
        for folio in batch:
            data = [page for page in folio if place(page) is not None]
            rest = [page for page in folio if page not in data]
            if not data:
                zeroed += rest
                continue
            riders += rest
            torn = data != list(folio[: len(data)])
            if bio and (torn or not _follows(place(bio[-1]), place(data[0]))):
                bios.append(tuple(bio))
                bio = []
            if torn:  # block_read_full_folio: one bio for each block
                bios += [(page,) for page in data]
                continue
            bio += data
            if rest:
                bios.append(tuple(bio))
                bio = []
        if bio:
            bios.append(tuple(bio))
    folios = [folio for batch in batches for folio in batch]
    return FileFolios(
        tuple(bios),
        tuple(riders),
        tuple(zeroed),
        tuple(page for folio in folios if window.mark & -len(folio) == folio.start for page in folio),
        {page: len(folio).bit_length() - 1 for folio in folios if len(folio) > 1 for page in folio},
    )


def _follows(before: int | None, place: int | None) -> bool:
    """ext4_mpage_readpages: last_block_in_bio == blocks[0] - 1."""
    return before is not None and place == before + 1


def _batches(window: Window) -> list[list[range]]:
    """The folios of each call of read_pages: as large as they may be up to the first that is in the way of a page that
    is cached (filemap_add_folio: -EEXIST), single pages from there on."""
    missing, span = set(window.pages), window.span
    index = span.start
    first: list[range] = []
    while index < span.stop:
        order = window.order
        if index & ((1 << order) - 1):
            order = (index & -index).bit_length() - 1
        while order and index + (1 << order) > span.stop:
            order -= 1
        folio = range(index, index + (1 << order))
        if not missing.issuperset(folio):
            break
        first.append(folio)
        index = folio.stop
    batches = [first] if first else []
    before = -2
    for page in (p for p in window.pages if p >= index):
        if page != before + 1:
            batches.append([])
        batches[-1].append(range(page, page + 1))
        before = page
    return batches
