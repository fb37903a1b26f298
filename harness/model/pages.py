# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of one page of guest RAM on the host: its VMA, its page table entry, its folio and its swap slot.

Page numbers are 4096-byte pages: ``vpn`` in the VMM's address space, ``index`` in the backing file.  A HostPage is a
value; what happens to it is a new HostPage.  States that no kernel can be in are refused when they are made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from harness.errors import ModelError


class Backing(StrEnum):
    """What backs the address; the last two are about the address having no backing at all."""

    ANON = "anon"
    SHMEM = "shmem"  # memfd, tmpfs
    FILE_SHARED = "file-shared"
    FILE_PRIVATE = "file-private"
    HUGETLB = "hugetlb"
    PFNMAP = "pfnmap"  # VM_PFNMAP or VM_IO
    NO_VMA = "no-vma"  # a memslot, but no VMA at its host address
    NO_SLOT = "no-slot"  # no memslot


FILES = (Backing.FILE_SHARED, Backing.FILE_PRIVATE)
SWAPPABLE = (Backing.ANON, Backing.SHMEM, Backing.FILE_PRIVATE)


class Pte(StrEnum):
    """The page table entry of the VMM's address space."""

    NONE = "none"
    WRITABLE = "writable"
    READ_ONLY = "read-only"
    ZERO = "zero-page"
    SWAP = "swap"
    MIGRATION = "migration"
    HWPOISON = "hwpoison"


PRESENT = (Pte.WRITABLE, Pte.READ_ONLY, Pte.ZERO)


class Lock(StrEnum):
    """Who holds PG_locked."""

    NO = "unlocked"
    READ = "read-io"  # until the end_io handler of a read in flight
    OTHER = "other"  # reclaim, split, migration, another fault


@dataclass(frozen=True, slots=True)
class Folio:
    """A page that is in memory: mapped, in the swap cache or in the page cache."""

    uptodate: bool = True
    lock: Lock = Lock.NO
    writeback: bool = False
    readahead: bool = False  # PG_readahead
    hwpoison: bool = False
    ksm: bool = False
    huge: bool = False  # part of a PMD-mapped folio
    order: int = 0  # page cache: the folio has 2^order pages, aligned in the file; each of them carries its state


@dataclass(frozen=True, slots=True)
class SwapSlot:
    """Where the content is (also) on a swap device.  ``offset`` is in pages from the start of the device."""

    offset: int = 64
    count: int = 1  # swap_map: more than one after fork
    synchronous: bool = False  # device is SWP_SYNCHRONOUS_IO: zram, brd, pmem (not a dm device over them)
    fast: bool = False  # the device has finished each read before the submitter looks again (row 10)
    zswap: bool = False
    zero: bool = False  # the page held only zero bytes when it was written out
    read_fails: bool = False
    ksm: bool = False  # was a KSM page: ksm_might_need_to_copy


@dataclass(frozen=True, slots=True)
class Vma:
    """The VMA; for NO_VMA, ``next_writable`` tells of the VMA that find_vma returns instead (None: none above)."""

    backing: Backing = Backing.ANON
    start: int = 0x7F0000000  # page number, first
    end: int = 0x7F0004000  # page number, one past the last
    readable: bool = True
    writable: bool = True
    rand_read: bool = False  # VM_RAND_READ (MADV_RANDOM)
    seq_read: bool = False  # VM_SEQ_READ (MADV_SEQUENTIAL)
    userfaultfd: bool = False  # registered for missing pages
    page_mkwrite: bool = True  # the file system wants page_mkwrite before a shared page becomes writable
    next_writable: bool | None = None


@dataclass(frozen=True, slots=True)
class HostPage:
    """One page, complete.  ``vpn``: page number in the VMM; ``index``: page number in the backing file."""

    vpn: int = 0x7F0000040
    vma: Vma = Vma()
    pte: Pte = Pte.NONE
    folio: Folio | None = None
    swap: SwapSlot | None = None
    index: int = 0x40
    beyond_eof: bool = False  # the file ends below this page
    read_fails: bool = False  # file: reading it ends in an I/O error
    charge_fails: bool = False  # the memory cgroup or the machine has no page to give: -ENOMEM
    read_only_slot: bool = False  # KVM_MEM_READONLY
    hole: bool = False  # file: no written block on the device, so the page is zero-filled without a read
    migrating_to: Pte = Pte.WRITABLE  # for Pte.MIGRATION: what the entry becomes afterwards

    def __post_init__(self) -> None:
        problem = _contradiction(self)
        if problem:
            raise ModelError(f"impossible page state: {problem}")

    @property
    def in_swap_cache(self) -> bool:
        """Whether lookup_swap_cache / swap_cache_get_folio finds it."""
        return self.swap is not None and self.folio is not None

    @property
    def swapped_out(self) -> bool:
        """Only on the swap device."""
        return self.swap is not None and self.folio is None

    @property
    def folio_indices(self) -> range:
        """Page numbers, in the file, of all of its folio."""
        pages = 1 << (self.folio.order if self.folio else 0)
        first = self.index - self.index % pages
        return range(first, first + pages)

    @property
    def locked(self) -> bool:
        return self.folio is not None and self.folio.lock is not Lock.NO


def _contradiction(p: HostPage) -> str:
    """What contradicts what; empty if nothing does."""
    backing, pte = p.vma.backing, p.pte
    if not p.vma.start <= p.vpn < p.vma.end:
        return f"page {p.vpn:#x} is outside its VMA"
    if p.vpn < 0 or p.index < 0:
        return "negative page number"
    if backing in (Backing.NO_VMA, Backing.NO_SLOT) and (pte is not Pte.NONE or p.folio is not None):
        return f"{backing}: there is no page table entry and no folio"
    if backing is not Backing.NO_VMA and p.vma.next_writable is not None:
        return f"next VMA given, but {backing} has one"
    if p.vma.userfaultfd and backing in (Backing.PFNMAP, Backing.NO_VMA, Backing.NO_SLOT):
        return f"userfaultfd is not registered on {backing}"
    return _of_swap(p, backing) or _of_the_entry(p, backing, pte) or _of_the_folio(p, backing) or _of_a_file(p, backing)


def _of_the_entry(p: HostPage, backing: Backing, pte: Pte) -> str:
    if pte is Pte.SWAP:
        if p.swap is None:
            return "the PTE is a swap entry but there is no swap slot"
        if backing is Backing.SHMEM:
            return "shmem keeps swap entries in its page cache, not in PTEs"
    elif pte is Pte.NONE:
        if p.swap is not None and backing is not Backing.SHMEM:
            return f"an {backing} page with a swap slot has a swap entry or a present PTE, not an empty one"
        if p.folio is not None and backing is Backing.ANON:
            return "an anonymous folio that no PTE refers to"
    elif pte is Pte.ZERO:
        if p.folio is not None:
            return "the zero page is mapped, so there is no folio of its own"
        if p.swap is not None:
            return "the zero page is never swapped"
        if backing not in (Backing.ANON, Backing.FILE_PRIVATE):
            return f"no zero page in {backing} memory"
    elif pte is Pte.MIGRATION:
        if p.migrating_to not in (Pte.WRITABLE, Pte.READ_ONLY):
            return "a migration entry becomes a present PTE"
    elif pte in (Pte.WRITABLE, Pte.READ_ONLY):
        if p.folio is None and backing is not Backing.PFNMAP:
            return "the PTE is present but there is no folio"
        if p.folio is not None and not p.folio.uptodate:
            return "a mapped folio that is not uptodate"
        if pte is Pte.WRITABLE and not p.vma.writable:
            return "a writable PTE in a VMA without VM_WRITE"
        if pte is Pte.WRITABLE and p.folio is not None and p.folio.ksm:
            return "a KSM page is never mapped writable"
    if backing is Backing.HUGETLB and pte not in (Pte.NONE, Pte.WRITABLE):
        return f"hugetlb with a {pte} PTE: not modelled"
    return ""


def _of_swap(p: HostPage, backing: Backing) -> str:
    swap = p.swap
    if swap is None:
        return ""
    if swap.offset < 1:
        return "swap offset 0 holds the header of the device, never a page"
    if swap.count < 1:
        return "a swap slot with count 0 is free, so it holds no page"
    if backing not in SWAPPABLE:
        return f"{backing} memory is never in the swap cache or on swap"
    if p.folio is not None and p.folio.huge:
        return "a PMD-mapped folio is split before it is swapped"
    if swap.zswap and swap.synchronous:
        return "zswap in front of a synchronous device: not modelled"
    return ""


def _of_the_folio(p: HostPage, backing: Backing) -> str:
    folio = p.folio
    if folio is None:
        return ""
    if not folio.uptodate and folio.writeback:
        return "not uptodate and under writeback"
    if folio.lock is Lock.READ and folio.uptodate:
        return "locked by a read in flight but already uptodate"
    if backing is Backing.PFNMAP:
        return "a PFNMAP page has no folio"
    return ""


def _of_a_file(p: HostPage, backing: Backing) -> str:
    if p.beyond_eof and backing not in (*FILES, Backing.SHMEM):
        return f"{backing} memory has no end of file"
    if p.beyond_eof and (p.folio is not None or p.swap is not None):
        return "a page beyond the end of file holds nothing"
    if p.read_fails and backing not in FILES:
        return f"{backing} memory is not read from a file (for swap: SwapSlot.read_fails)"
    if p.hole and backing not in FILES:
        return f"{backing} memory has no holes on a device"
    return ""


# --- what happens to a page, whoever does it -------------------------------------------------------------------------


def with_folio(page: HostPage, folio: Folio | None) -> HostPage:
    """The same page with another folio.  As replace(), which looks at each field by name."""
    return HostPage(
        page.vpn, page.vma, page.pte, folio, page.swap, page.index, page.beyond_eof, page.read_fails,
        page.charge_fails, page.read_only_slot, page.hole, page.migrating_to,
    )  # fmt: skip


_remembered = lru_cache(maxsize=16384)
"""A search plays the same pages in many orders, and each window of read-ahead has tens of them."""


@_remembered
def uncached(vpn: int, vma: Vma, index: int, *, hole: bool) -> HostPage:
    """A page of a file of which nothing is in memory."""
    return HostPage(vpn=vpn, vma=vma, index=index, hole=hole)


@_remembered
def read_submitted(page: HostPage, *, readahead: bool = False, order: int = 0) -> HostPage:
    """A read was submitted: a locked folio, not uptodate, is in the swap cache or page cache.

    :param readahead: mark it PG_readahead (pages of the window other than the target).
    :param order: of the folio.
    """
    return with_folio(page, Folio(uptodate=False, lock=Lock.READ, readahead=readahead, order=order))


@_remembered
def read_completed(page: HostPage, *, refused: bool = False, by_device: bool = True) -> HostPage:
    """The read in flight has ended (end_swap_bio_read, mpage end_io): unlocked, uptodate unless it failed.

    :param refused: the device did not take this one, but may take the next.
    :param by_device: False: no device was asked, so that none has failed.
    """
    if page.folio is None or page.folio.lock is not Lock.READ:
        raise ModelError("no read of this page is in flight")
    fails = page.read_fails or (page.swap is not None and page.swap.read_fails)
    failed = refused or (by_device and fails)
    return with_folio(page, replace(page.folio, uptodate=not failed, lock=Lock.NO))


@_remembered
def zero_filled(page: HostPage, *, readahead: bool = False, order: int = 0) -> HostPage:
    """The page has come into the cache without a read: a hole of a file, or a page that the zero map knows."""
    return with_folio(page, Folio(readahead=readahead, order=order))


def unlocked(page: HostPage) -> HostPage:
    """Whoever else held PG_locked lets it go."""
    if page.folio is None or page.folio.lock is not Lock.OTHER:
        raise ModelError("nobody but a read holds the lock of this page")
    return replace(page, folio=replace(page.folio, lock=Lock.NO))


def migrated(page: HostPage) -> HostPage:
    """remove_migration_ptes: the entry is a present PTE again."""
    if page.pte is not Pte.MIGRATION:
        raise ModelError("the page is not being migrated")
    return replace(page, pte=page.migrating_to, folio=page.folio or Folio())


def userfault_resolved(page: HostPage) -> HostPage:
    """UFFDIO_COPY has put a page there and mapped it, as writable as the mapping is, shmem's too
    (mm/userfaultfd.c:mfill_atomic_install_pte; 5.10 mm/shmem.c:shmem_mfill_atomic_pte)."""
    if not page.vma.userfaultfd:
        raise ModelError("no userfaultfd is registered here")
    return replace(page, pte=Pte.WRITABLE if page.vma.writable else Pte.READ_ONLY, folio=Folio())


def asks_the_file_system(done: HostPage, before: HostPage) -> bool:
    """mm/memory.c:do_shared_fault unlocks the page, and calls page_mkwrite, before it maps it for writing."""
    vma = done.vma
    written = done.pte is Pte.WRITABLE and before.pte is Pte.NONE
    return written and vma.backing is Backing.FILE_SHARED and vma.page_mkwrite


def to_be_read(page: HostPage) -> bool:
    """Whoever looks at it now misses it in the cache: VM_FAULT_MAJOR (mm/memory.c:do_swap_page, mm/filemap.c)."""
    return page.folio is None and (page.pte is Pte.SWAP or page.vma.backing is not Backing.ANON)


def next_uptodate_folio(page: HostPage) -> bool:
    """mm/filemap.c:next_uptodate_folio (6.1: next_uptodate_page), and the test of PG_hwpoison after it."""
    folio = page.folio
    if folio is None or page.swap is not None:
        return False
    return folio.uptodate and folio.lock is Lock.NO and not (folio.readahead or folio.hwpoison)


def makes_its_own(done: HostPage, before: HostPage) -> bool:
    """mm/memory.c:do_anonymous_page zeroes a page, wp_page_copy copies one, that nobody else can see, and locks none:
    who comes meanwhile finds the PTE as it was and makes one too, and pte_same keeps the first that is ready."""
    if before.pte in PRESENT:
        return done.pte is not before.pte
    return before.vma.backing is Backing.ANON and before.pte is Pte.NONE and before.folio is None
