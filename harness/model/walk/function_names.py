# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel's functions are called in a release, where that differs from the name that the model uses.

Each entry: from which release, in which file, under which name; the trees named in ``kernel_changes`` were read, a
release between two of them is the commit's as far as is known.  A name that is also the caller's says that the code
stands in the caller.
"""

from __future__ import annotations

from harness.model.kernel_changes import Release
from harness.model.kernels import KernelModel

MMU = "arch/x86/kvm/mmu/mmu.c"
KVM = "virt/kvm/kvm_main.c"
_Names = tuple[tuple[Release, str, str], ...]

NAMES: dict[tuple[str, str], _Names] = {
    (MMU, "direct_page_fault"): (
        ((5, 10), MMU, "direct_page_fault"), ((6, 3), MMU, "kvm_tdp_mmu_page_fault"),
    ),
    (MMU, "kvm_faultin_pfn"): (((6, 3), MMU, "kvm_faultin_pfn"), ((6, 13), MMU, "kvm_mmu_faultin_pfn")),
    (MMU, "__kvm_faultin_pfn"): (
        ((5, 10), MMU, "try_async_pf"), ((5, 14), MMU, "kvm_faultin_pfn"), ((6, 3), MMU, "__kvm_faultin_pfn"),
        ((6, 13), MMU, "__kvm_mmu_faultin_pfn"),
    ),
    (MMU, "kvm_handle_error_pfn"): (
        ((5, 10), MMU, "kvm_handle_bad_page"), ((6, 3), MMU, "kvm_handle_error_pfn"),
    ),
    (MMU, "is_page_fault_stale"): (
        ((5, 10), "include/linux/kvm_host.h", "mmu_notifier_retry"), ((5, 16), MMU, "is_page_fault_stale"),
        ((6, 9), "include/linux/kvm_host.h", "mmu_invalidate_retry_gfn_unsafe"),
    ),
    (MMU, "kvm_arch_async_page_ready"): (
        ((5, 10), "arch/x86/kvm/x86.c", "kvm_arch_async_page_ready"), ((6, 1), MMU, "kvm_arch_async_page_ready"),
    ),
    (KVM, "__gfn_to_pfn_memslot"): (((5, 10), KVM, "__gfn_to_pfn_memslot"), ((6, 13), KVM, "__kvm_faultin_pfn")),
    ("mm/filemap.c", "lock_folio_maybe_drop_mmap"): (
        ((5, 10), "mm/filemap.c", "lock_page_maybe_drop_mmap"),
        ((5, 18), "mm/filemap.c", "lock_folio_maybe_drop_mmap"),
    ),
    ("mm/filemap.c", "filemap_read_folio"): (
        ((5, 10), "mm/filemap.c", "filemap_fault"), ((5, 18), "mm/filemap.c", "filemap_read_folio"),
    ),
    ("mm/filemap.c", "folio_lock_or_retry"): (
        ((5, 10), "include/linux/pagemap.h", "lock_page_or_retry"),
        ((6, 1), "include/linux/pagemap.h", "folio_lock_or_retry"),
    ),
    ("mm/shmem.c", "shmem_swapin_folio"): (
        ((5, 10), "mm/shmem.c", "shmem_swapin_page"), ((5, 18), "mm/shmem.c", "shmem_swapin_folio"),
    ),
    ("mm/shmem.c", "shmem_swap_alloc_folio"): (((6, 14), "mm/shmem.c", "shmem_swap_alloc_folio"),),
    ("mm/swap_state.c", "swap_cache_get_folio"): (
        ((5, 10), "mm/swap_state.c", "lookup_swap_cache"), ((6, 1), "mm/swap_state.c", "swap_cache_get_folio"),
    ),
    ("mm/swap_state.c", "swapin_sync"): (
        ((5, 10), "mm/memory.c", "do_swap_page"), ((7, 2), "mm/swap_state.c", "swapin_sync"),
    ),
    ("mm/page_io.c", "swap_readpage"): (
        ((5, 10), "mm/page_io.c", "swap_readpage"), ((6, 9), "mm/page_io.c", "swap_read_folio"),
    ),
    ("mm/page_io.c", "swap_read_folio_zeromap"): (((6, 12), "mm/page_io.c", "swap_read_folio_zeromap"),),
    ("fs/userfaultfd.c", "handle_userfault"): (
        ((5, 10), "fs/userfaultfd.c", "handle_userfault"), ((7, 2), "mm/userfaultfd.c", "handle_userfault"),
    ),
}  # fmt: skip


def name_in(kernel: KernelModel, file: str, name: str) -> tuple[str, str]:
    """The file and the name that a function of the model has in the kernel's release."""
    names = NAMES.get((file, name))
    if names is None or kernel.era_2010:
        return file, name
    return kernel.as_of(tuple((since, (there, called)) for since, there, called in names))
