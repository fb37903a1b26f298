# SPDX-License-Identifier: GPL-2.0-or-later
"""Impossible page states are refused, and the message names what contradicts what."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import ModelError
from harness.model.pages import (
    Backing,
    Folio,
    HostPage,
    Lock,
    Pte,
    SwapSlot,
    Vma,
    migrated,
    read_completed,
    read_submitted,
    unlocked,
    userfault_resolved,
)
from harness.model.walk.page_states import BACKING_NAMES, STATES, page_in_state

SHMEM, FILE, PFN = Vma(Backing.SHMEM), Vma(Backing.FILE_SHARED), Vma(Backing.PFNMAP)
SLOT = SwapSlot()

IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"vpn": 5}, "outside its VMA"),
    ({"index": -1}, "negative page number"),
    ({"pte": Pte.SWAP, "swap": SwapSlot(offset=0)}, "swap offset 0"),
    ({"pte": Pte.SWAP, "swap": SwapSlot(count=0)}, "count 0 is free"),
    ({"vma": PFN, "swap": SLOT}, "pfnmap memory is never in the swap cache or on swap"),
    ({"pte": Pte.SWAP}, "there is no swap slot"),
    ({"vma": SHMEM, "pte": Pte.SWAP, "swap": SLOT}, "shmem keeps swap entries in its page cache"),
    ({"swap": SLOT}, "not an empty one"),
    ({"folio": Folio()}, "no PTE refers to"),
    ({"pte": Pte.ZERO, "folio": Folio()}, "no folio of its own"),
    ({"pte": Pte.ZERO, "swap": SLOT}, "the zero page is never swapped"),
    ({"vma": SHMEM, "pte": Pte.ZERO}, "no zero page in shmem memory"),
    ({"pte": Pte.WRITABLE}, "there is no folio"),
    ({"vma": Vma(writable=False), "pte": Pte.WRITABLE, "folio": Folio()}, "without VM_WRITE"),
    ({"pte": Pte.READ_ONLY, "folio": Folio(uptodate=False)}, "not uptodate"),
    ({"pte": Pte.WRITABLE, "folio": Folio(ksm=True)}, "KSM"),
    ({"pte": Pte.SWAP, "swap": SLOT, "folio": Folio(uptodate=False, writeback=True)}, "under writeback"),
    ({"pte": Pte.SWAP, "swap": SLOT, "folio": Folio(lock=Lock.READ)}, "already uptodate"),
    ({"pte": Pte.SWAP, "swap": SLOT, "folio": Folio(huge=True)}, "split before it is swapped"),
    ({"pte": Pte.SWAP, "swap": SwapSlot(zswap=True, synchronous=True)}, "zswap in front of"),
    ({"vma": PFN, "pte": Pte.WRITABLE, "folio": Folio()}, "a PFNMAP page has no folio"),
    ({"vma": Vma(Backing.NO_VMA), "pte": Pte.READ_ONLY, "folio": Folio()}, "no page table entry"),
    ({"vma": Vma(next_writable=True)}, "next VMA given"),
    ({"beyond_eof": True}, "anon memory has no end of file"),
    ({"vma": FILE, "beyond_eof": True, "folio": Folio()}, "beyond the end of file"),
    ({"read_fails": True}, "not read from a file"),
    ({"vma": Vma(Backing.HUGETLB), "pte": Pte.READ_ONLY, "folio": Folio()}, "hugetlb with a read-only PTE"),
    ({"vma": Vma(Backing.PFNMAP, userfaultfd=True)}, "userfaultfd is not registered on pfnmap"),
    ({"pte": Pte.MIGRATION, "migrating_to": Pte.SWAP}, "becomes a present PTE"),
]


@pytest.mark.parametrize(("fields", "message"), IMPOSSIBLE, ids=[m for _, m in IMPOSSIBLE])
def test_impossible(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        HostPage(**fields)


def test_every_named_state_is_possible_for_its_backings_and_refused_for_others() -> None:
    made = 0
    for backing in Backing:
        for name, state in STATES.items():
            if backing in state.backings:
                page_in_state(backing, name)
                made += 1
            else:
                with pytest.raises(ModelError, match="is never"):
                    page_in_state(backing, name)
    assert made > 40


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (("cdrom", "swapped"), {}, "unknown backing 'cdrom'"),
        (("anon", "lost"), {}, "unknown page state 'lost'"),
        (("pfnmap", "swapcache"), {}, "pfnmap memory is never 'swapcache'"),
        (("anon", "populated"), {"synchronous": True}, "not on a swap device"),
        (("anon", "populated"), {"swap_count": 2}, "not on a swap device"),
        (("anon", "populated"), {"ksm": True}, "the state is 'ksm'"),
        (("anon", "untouched"), {"next_vma": "writable"}, "next VMA given"),
        (("none", "missing"), {"next_vma": "yes"}, "'writable' or 'read-only'"),
        (("anon", "populated"), {"read_only_vma": True}, "without VM_WRITE"),
        (("anon", "swapped"), {"swap_count": 0}, "count 0"),
    ],
)
def test_bad_requests(args: tuple[str, str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        page_in_state(*args, **options)


def test_names_of_people() -> None:
    assert BACKING_NAMES["memfd"] is Backing.SHMEM and BACKING_NAMES["file"] is Backing.FILE_SHARED
    assert page_in_state("none", "missing", next_vma="writable").vma.next_writable is True
    assert page_in_state("memfd", "swapped").pte is Pte.NONE
    assert page_in_state("anon", "swapped", read_fails=True).swap == SwapSlot(read_fails=True)
    assert page_in_state("file", "dropped", read_fails=True).read_fails


def test_transitions() -> None:
    page = read_submitted(page_in_state("anon", "swapped"), readahead=True)
    assert page.locked and page.in_swap_cache and not page.swapped_out
    assert page.folio == Folio(uptodate=False, lock=Lock.READ, readahead=True)
    assert read_completed(page).folio == Folio(readahead=True)
    failed = read_completed(read_submitted(page_in_state("anon", "swapped", read_fails=True)))
    assert failed.folio == Folio(uptodate=False)
    held = HostPage(pte=Pte.READ_ONLY, folio=Folio(lock=Lock.OTHER))
    assert unlocked(held).folio == Folio()
    assert migrated(page_in_state("anon", "migration")).pte is Pte.WRITABLE
    assert userfault_resolved(page_in_state("anon", "untouched", userfaultfd=True)).pte is Pte.WRITABLE
    assert userfault_resolved(page_in_state("memfd", "untouched", userfaultfd=True)).pte is Pte.WRITABLE
    half = HostPage(vma=Vma(writable=False, userfaultfd=True))
    assert userfault_resolved(half).pte is Pte.READ_ONLY
