# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages lie in one folio with a page that was reclaimed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harness.judge.taken_folios import in_one_folio
from harness.model.events import Event, Kind

RAM = 0x7F00_0000_3000
TAKEN = frozenset({0x1029000})


def _after(*events: Event) -> frozenset[int]:
    evidence: Any = SimpleNamespace(ram_hva=lambda: RAM, of=lambda _: events)
    return in_one_folio(evidence, TAKEN)


def _unmap(first: int, end: int, vcpu: int = -1, *, worker: bool = False) -> Event:
    return Event(Kind.UNMAP, vcpu, hva=RAM + first, data=RAM + end, worker=worker)


def test_a_folio_is_written_back_and_unmapped_as_a_whole() -> None:
    """Seen on 7.3: of four pages one was reclaimed; of another, which a worker had made dirty, D43 was told."""
    assert _after(_unmap(0x1028000, 0x102C000)) == {0x1028000, 0x1029000, 0x102A000, 0x102B000}
    assert _after(_unmap(0x1029000, 0x102A000)) == TAKEN


def test_other_invalidations_are_of_no_folio() -> None:
    whole = 0x1028000, 0x102C000
    assert not _after(_unmap(*whole, vcpu=0)) | _after(_unmap(*whole, worker=True))
    assert not _after(_unmap(0x102C000, 0x1030000))  # another's
    assert not _after(_unmap(0x1029000, 0x102B000))  # aligned to no folio
    assert not _after(_unmap(0x1000000, 0x2000000))  # larger than any
    assert not in_one_folio(SimpleNamespace(ram_hva=lambda: RAM, of=lambda _: [_unmap(*whole)]), frozenset())  # type: ignore[arg-type]
