# SPDX-License-Identifier: GPL-2.0-or-later
"""Page states by name, for people: "anon, swapped", "file, dropped"; each becomes a HostPage.

A state says where the page is; the modifiers say what is special about it.  What no kernel can be in is refused by
HostPage itself, what a name does not make sense for by :func:`page_in_state`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.errors import ModelError
from harness.model.pages import FILES, Backing, Folio, HostPage, Lock, Pte, SwapSlot, Vma

_ANON, _SHMEM, _HUGE = Backing.ANON, Backing.SHMEM, Backing.HUGETLB
_CACHED = (Backing.SHMEM, *FILES)
_NO_PAGE = (Backing.NO_VMA, Backing.NO_SLOT)

BACKING_NAMES: dict[str, Backing] = {b.value: b for b in Backing} | {
    "memfd": Backing.SHMEM, "file": Backing.FILE_SHARED, "none": Backing.NO_VMA,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class State:
    """A named state: for which backings, and in words."""

    words: str
    backings: tuple[Backing, ...]


STATES: dict[str, State] = {
    "untouched": State("never touched, or given back by MADV_DONTNEED", (_ANON, _SHMEM, _HUGE, Backing.PFNMAP)),
    "populated": State("resident, PTE writable", (_ANON, _SHMEM, Backing.FILE_SHARED, _HUGE, Backing.PFNMAP)),
    "read-only": State("resident, PTE present and read-only", (_ANON, *_CACHED)),
    "zero-page": State("the zero page is mapped", (_ANON,)),
    "ksm": State("resident, merged by KSM", (_ANON,)),
    "thp": State("part of a resident transparent huge page", (_ANON,)),
    "cached": State("in the page cache, uptodate and unlocked, not mapped", _CACHED),
    "cached-readahead": State("as cached, with PG_readahead: where the next window is to begin", FILES),
    "cache-locked": State("in the page cache, locked by a read in flight", FILES),
    "not-uptodate": State("in the page cache, unlocked, not uptodate: an earlier read failed", FILES),
    "dropped": State("not in the page cache", FILES),
    "truncated": State("the file ends below the page", (_SHMEM, *FILES)),
    "swapcache": State("unmapped, uptodate and unlocked in the swap cache", (_ANON, _SHMEM)),
    "swapcache-writeback": State("as swapcache, still being written out", (_ANON, _SHMEM)),
    "swapcache-readahead": State("as swapcache, brought in by read-ahead: PG_readahead is set", (_ANON, _SHMEM)),
    "swapcache-locked": State("in the swap cache, locked by a read in flight", (_ANON, _SHMEM)),
    "swapped": State("only on the swap device", (_ANON, _SHMEM)),
    "zero-swapped": State("as swapped; the page held only zero bytes", (_ANON, _SHMEM)),
    "zswapped": State("compressed in zswap", (_ANON, _SHMEM)),
    "migration": State("being migrated", (_ANON,)),
    "hwpoison": State("poisoned", (_ANON, *_CACHED)),
    "missing": State("no VMA, or no memslot", _NO_PAGE),
}


def page_in_state(
    backing: str, state: str, *, swap_count: int = 1, synchronous: bool = False, fast: bool = False,
    read_fails: bool = False, charge_fails: bool = False, read_only_vma: bool = False, read_only_slot: bool = False,
    userfaultfd: bool = False, random_advice: bool = False, ksm: bool = False, next_vma: str = "",
) -> HostPage:  # fmt: skip
    """Build a page from names.

    :param backing: a Backing, or memfd, file, none.
    :param next_vma: for backing no-vma: what is above: "" nothing, "writable", "read-only".
    :raise ModelError: unknown name; a state that this backing has not; an impossible combination.
    """
    if backing not in BACKING_NAMES:
        raise ModelError(f"unknown backing {backing!r}", hint=f"known: {', '.join(BACKING_NAMES)}")
    kind = BACKING_NAMES[backing]
    if state not in STATES:
        raise ModelError(f"unknown page state {state!r}", hint=f"known: {', '.join(STATES)}")
    if kind not in STATES[state].backings:
        fits = ", ".join(name for name, s in STATES.items() if kind in s.backings)
        raise ModelError(f"{kind} memory is never {state!r} ({STATES[state].words})", hint=f"it can be: {fits}")
    swap = _swap_of(state, swap_count=swap_count, synchronous=synchronous, fast=fast, ksm=ksm)
    if swap is None and (swap_count > 1 or synchronous or fast):
        raise ModelError(f"a page that is {state!r} is not on a swap device, so that device has no properties")
    if ksm and swap is None:
        raise ModelError("ksm is about a swapped page; for a resident one the state is 'ksm'")
    if swap is not None and read_fails:
        swap = replace(swap, read_fails=True)
    if next_vma and next_vma not in ("writable", "read-only"):
        raise ModelError(f"next_vma is 'writable' or 'read-only', not {next_vma!r}")
    vma = Vma(backing=kind, writable=not read_only_vma, userfaultfd=userfaultfd, rand_read=random_advice,
              next_writable=next_vma == "writable" if next_vma else None)  # fmt: skip
    return HostPage(
        vma=vma, swap=swap, folio=_folio_of(state, kind), pte=_pte_of(state, kind), beyond_eof=state == "truncated",
        read_fails=read_fails and swap is None, charge_fails=charge_fails, read_only_slot=read_only_slot,
    )  # fmt: skip


def _swap_of(state: str, *, swap_count: int, synchronous: bool, fast: bool, ksm: bool) -> SwapSlot | None:
    if not (state.startswith("swapcache") or state in ("swapped", "zero-swapped", "zswapped")):
        return None
    return SwapSlot(count=swap_count, synchronous=synchronous, fast=fast, zswap=state == "zswapped",
                    zero=state == "zero-swapped", ksm=ksm)  # fmt: skip


def _folio_of(state: str, backing: Backing) -> Folio | None:
    if backing is Backing.PFNMAP:
        return None
    if state == "hwpoison":
        return Folio(hwpoison=True) if backing in _CACHED else None
    return {
        "populated": Folio(huge=backing is _HUGE), "read-only": Folio(), "ksm": Folio(ksm=True),
        "thp": Folio(huge=True), "cached": Folio(), "cached-readahead": Folio(readahead=True),
        "cache-locked": Folio(uptodate=False, lock=Lock.READ),
        "not-uptodate": Folio(uptodate=False), "swapcache": Folio(), "swapcache-writeback": Folio(writeback=True),
        "swapcache-readahead": Folio(readahead=True), "swapcache-locked": Folio(uptodate=False, lock=Lock.READ),
    }.get(state)  # fmt: skip


def _pte_of(state: str, backing: Backing) -> Pte:
    swapped = state.startswith("swapcache") or state in ("swapped", "zero-swapped", "zswapped")
    if swapped:
        return Pte.NONE if backing is _SHMEM else Pte.SWAP
    if state == "hwpoison":
        return Pte.NONE if backing in _CACHED else Pte.HWPOISON
    return {
        "populated": Pte.WRITABLE, "thp": Pte.WRITABLE, "read-only": Pte.READ_ONLY, "ksm": Pte.READ_ONLY,
        "zero-page": Pte.ZERO, "migration": Pte.MIGRATION,
    }.get(state, Pte.NONE)  # fmt: skip
