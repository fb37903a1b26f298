# SPDX-License-Identifier: GPL-2.0-or-later
"""The history of what the model asks about a kernel: which release brought which behaviour, as data.

A kernel is Linux 5.10 and all changes that its release has: those of its mainline release and of earlier ones, and
the backports to its own stable series.  Trees read beside each other: Debian's linux-source 5.10.262, 6.1.192,
6.12.117, 7.2.13 and 7.3.4.  ``read`` of a change says between which of them the difference was seen; the exact release
within that interval is from the commit named, and where it could not be checked against a tree, ``open`` says so.
"""

from __future__ import annotations

from dataclasses import dataclass

Release = tuple[int, ...]
"""(6, 1): mainline 6.1 and its stable series; (6, 1, 84): that stable level and the later ones of the series."""

READ_RELEASES: tuple[Release, ...] = ((5, 10, 262), (6, 1, 192), (6, 12, 117), (7, 2, 13), (7, 3, 4))
"""The trees that were read."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    :param field: of KernelModel; ``value``: what it is from this change on.
    :param since: the mainline release that brought it; ``backports``: stable levels that have it too.
    :param function: file:function of the kernel; ``commit``: the subject of the commit, or of its series.
    :param read: the last tree read that lacks it, the first one that has it.
    :param open: what is not settled; empty if nothing is.
    """

    field: str
    value: object
    since: Release
    function: str
    commit: str
    read: tuple[Release, Release]
    backports: tuple[Release, ...] = ()
    open: str = ""

    def in_release(self, release: Release) -> bool:
        """Whether a kernel of this release, (major, minor, stable level), has the change."""
        if release[:2] >= self.since[:2]:
            return True
        return any(release[:2] == level[:2] and release >= level for level in self.backports)


_5_10, _6_1, _6_12, _7_2, _7_3 = READ_RELEASES
_BOUNDS = "the release is the commit's as far as is known; the trees read bound it on both sides"
_NO_COMMIT = "neither commit nor exact release is known; the trees read bound it on both sides"
_X86 = "arch/x86/kvm/x86.c:"
_MMU = "arch/x86/kvm/mmu/mmu.c:"

CHANGES: tuple[Change, ...] = (
    Change("token_with_paging_off", False, (5, 13), f"{_X86}kvm_can_deliver_async_pf",
           "", (_5_10, _6_1), open=_NO_COMMIT),
    Change("lapic_disabled_defers", True, (5, 13), f"{_X86}kvm_arch_can_dequeue_async_page_present",
           "KVM: x86: Properly handle APF vs disabled LAPIC situation", (_5_10, _6_1), ((5, 10, 119),)),
    Change("memcg_events_batched", False, (5, 13), "mm/memcontrol.c:memory_stat_format",
           "mm: memcontrol: switch to rstat", (_5_10, _6_1), open=_BOUNDS),
    Change("prefetches_last_run", True, (5, 13), f"{_MMU}__direct_pte_prefetch",
           "", (_5_10, _6_1), open=_NO_COMMIT),
    Change("tdp_mmu", True, (5, 15), "arch/x86/kvm/mmu/tdp_mmu.c:kvm_mmu_init_tdp_mmu",
           "KVM: x86: enable TDP MMU by default", (_5_10, _6_1), open=_BOUNDS),
    Change("repeated_fault_event", "kvm_async_pf_repeated_fault", (5, 15), f"{_MMU}kvm_faultin_pfn",
           "", (_5_10, _6_1), open=_NO_COMMIT),
    Change("halt_polls", False, (5, 17), "virt/kvm/kvm_main.c:kvm_vcpu_block, kvm_vcpu_halt",
           "KVM: Split out a kvm_vcpu_block() helper from kvm_vcpu_halt()", (_5_10, _6_1), open=_BOUNDS),
    Change("token_never_zero", True, (5, 17), f"{_MMU}alloc_apf_token",
           "KVM: x86/mmu: make apf token non-zero to fix bug", (_5_10, _6_1), ((5, 10, 103),),
           "the stable level of 5.15 that has it"),
    Change("masked_interrupt_spins", False, (5, 17), "arch/x86/kvm/svm/svm.c:svm_interrupt_allowed",
           "KVM: x86: nSVM: deal with L1 hypervisor that intercepts interrupts but lets L2 control them",
           (_5_10, _6_1), open="the stable level of 5.15 that has it"),
    Change("wp_counts_references", False, (5, 18), "mm/memory.c:do_wp_page",
           "mm: optimize do_wp_page() for exclusive pages in the swapcache", (_5_10, _6_1), open=_BOUNDS),
    Change("congested_single_page", False, (5, 18), "mm/swap_state.c:swap_cluster_readahead",
           "remove inode_congested()", (_5_10, _6_1), open=_BOUNDS),
    Change("swap_pte_exclusive", True, (5, 19), "mm/memory.c:do_swap_page",
           "mm/swap: remember PG_anon_exclusive via a swp pte bit", (_5_10, _6_1), open=_BOUNDS),
    Change("pf_taken_statistic", True, (6, 0), "arch/x86/kvm/mmu/mmu_internal.h:kvm_mmu_do_page_fault",
           "KVM: x86/mmu: Expand and clean up page fault stats", (_5_10, _6_1), open=_BOUNDS),
    Change("dirtying_retries", False, (6, 0), "mm/memory.c:fault_dirty_shared_page",
           "mm: avoid unnecessary page fault retires on shared memory types", (_5_10, _6_1), open=_BOUNDS),
    Change("needs_pf_intercept", False, (6, 1), f"{_X86}kvm_inject_page_fault",
           "KVM: x86: Morph pending exceptions to pending VM-Exits at queue time", (_5_10, _6_1), open=_BOUNDS),
    Change("vmexit_needs_request", True, (6, 1), f"{_X86}kvm_queue_exception_vmexit",
           "KVM: x86: Morph pending exceptions to pending VM-Exits at queue time", (_5_10, _6_1), open=_BOUNDS),
    Change("sync_loses_vmexit", True, (6, 1), f"{_X86}kvm_vcpu_ioctl_x86_get_vcpu_events",
           "KVM: x86: Morph pending exceptions to pending VM-Exits at queue time", (_5_10, _6_1), open=_BOUNDS),
    Change("running_checks_nested", False, (6, 1), f"{_X86}kvm_vcpu_running",
           "KVM: x86: never write to memory from kvm_vcpu_check_block()", (_5_10, _6_1), open=_BOUNDS),
    Change("init_keeps_l2_tables", False, (6, 1), f"{_X86}kvm_vcpu_reset",
           "KVM: x86: forcibly leave nested mode on vCPU reset", (_5_10, _6_1),
           open="the release, and the stable levels of 5.15 that have it"),
    Change("interruptible_gup", True, (6, 2), "virt/kvm/kvm_main.c:hva_to_pfn_slow",
           "kvm: x86: Allow to respond to generic signals during slow PF", (_6_1, _6_12), open=_BOUNDS),
    Change("sigpending_pfn", True, (6, 2), "virt/kvm/kvm_main.c:hva_to_pfn",
           "kvm: Add KVM_PFN_ERR_SIGPENDING", (_6_1, _6_12), open=_BOUNDS),
    Change("foll_renumbered", True, (6, 3), "include/linux/mm_types.h, mm/internal.h",
           "mm/gup: move private gup FOLL_ flags to internal.h", (_6_1, _6_12), open=_BOUNDS),
    Change("faultin_split", True, (6, 3), f"{_MMU}__kvm_faultin_pfn",
           "KVM: x86/mmu: Handle error PFNs in kvm_faultin_pfn()", (_6_1, _6_12), open=_BOUNDS),
    Change("bdev_rw_page", False, (6, 3), "mm/page_io.c:swap_readpage", "block: remove ->rw_page",
           (_6_1, _6_12), open=_BOUNDS),
    Change("window_is_l2s", False, (6, 4), "arch/x86/kvm/svm/svm.c:svm_set_vintr",
           "KVM: nSVM: Disable intercept of VINTR if saved L1 host RFLAGS.IF is 0", (_6_1, _6_12), open=_BOUNDS),
    Change("pgfault_counts_retry", False, (6, 4), "mm/memory.c:mm_account_fault",
           "mm: do not increment pgfault stats when page fault handler retries", (_6_1, _6_12),
           open=_BOUNDS),
    Change("do_poll", False, (6, 6), "mm/swap_state.c:read_swap_cache_async",
           "swap: remove remnants of polling from read_swap_cache_async", (_6_1, _6_12), open=_BOUNDS),
    Change("gup_hugetlb_apart", False, (6, 6), "mm/gup.c:__get_user_pages",
           "mm/gup: retire follow_hugetlb_page()", (_6_1, _6_12), open=_BOUNDS),
    Change("always_flush_work", True, (6, 9), "virt/kvm/async_pf.c:kvm_flush_and_free_async_pf_work",
           "KVM: Always flush async #PF workqueue when vCPU is being destroyed", (_6_1, _6_12),
           ((5, 10, 215), (6, 1, 84)), "the stable levels of 5.15 and 6.6 that have it"),
    Change("stale_before_lock", True, (6, 9), f"{_MMU}kvm_faultin_pfn",
           "KVM: x86/mmu: Retry fault before acquiring mmu_lock if mapping is changing", (_6_1, _6_12),
           open=_BOUNDS),
    Change("prefetch_keeps_error_code", True, (6, 10), f"{_MMU}kvm_arch_async_page_ready",
           "KVM: x86/mmu: pass error code back to MMU when async pf is ready", (_6_1, _6_12), open=_BOUNDS),
    Change("swapin_read_writable", True, (6, 11), "mm/memory.c:do_swap_page",
           "", (_6_1, _6_12), open=_NO_COMMIT),
    Change("pre_fault_memory", True, (6, 11), f"{_MMU}kvm_arch_vcpu_pre_fault_memory",
           "KVM: Add KVM_PRE_FAULT_MEMORY vcpu ioctl to pre-populate guest memory", (_6_1, _6_12), open=_BOUNDS),
    Change("large_folio_swapin", True, (6, 12), "mm/memory.c:alloc_swap_folio",
           "mm: support large folios swap-in for sync io devices", (_6_1, _6_12)),
    Change("zero_map", True, (6, 12), "mm/page_io.c:swap_read_folio_zeromap",
           "mm: store zero pages to be swapped out in a bitmap", (_6_1, _6_12)),
    Change("marker_is_expected", True, (6, 12), "mm/readahead.c:page_cache_async_ra",
           "", (_6_1, _6_12), open=_NO_COMMIT),
    Change("next_miss_tells_none", True, (6, 12), "mm/filemap.c:page_cache_next_miss",
           "", (_6_1, _6_12), open=_NO_COMMIT),
    Change("prefetch_keeps_entry", True, (6, 13), "arch/x86/kvm/mmu/tdp_mmu.c:tdp_mmu_map_handle_target_level",
           "KVM: x86/mmu: Treat TDP MMU faults as spurious if access is already allowed", (_6_12, _7_2),
           open=_BOUNDS),
    Change("shmem_swapin_sync", True, (6, 14), "mm/shmem.c:shmem_swapin_folio, shmem_swap_alloc_folio",
           "mm: shmem: skip swapcache for swapin of synchronous swap device", (_6_12, _7_3), open=_BOUNDS),
    Change("ready_clears_kick", True, (6, 15), f"{_X86}kvm_arch_async_page_present",
           "KVM: x86: Clear pv_unhalted on all transitions to KVM_MP_STATE_RUNNABLE", (_6_12, _7_2), open=_BOUNDS),
    Change("ext4_large_folios", True, (6, 16), "fs/ext4/inode.c:ext4_set_inode_mapping_order",
           "ext4: enable large folio for regular file", (_6_12, _7_2), open=_BOUNDS),
    Change("read_around_single", True, (6, 17), "mm/readahead.c:page_cache_ra_order, page_cache_async_ra",
           "mm/readahead: store folio order in struct file_ra_state", (_6_12, _7_2),
           open="by the types in the packages' own BTF: 6.16.12 has page_cache_ra_order's new_order, 6.17.13 has "
                "file_ra_state's order"),
    Change("fault_maps_folio", True, (6, 18), "mm/filemap.c:filemap_map_folio_range, mm/memory.c:finish_fault",
           "mm/filemap: map entire large folio faultaround", (_6_12, _7_2), open=_BOUNDS),
    Change("hwpoison_after_lock", True, (6, 18), "mm/memory.c:do_swap_page",
           "series \"mm, swap: introduce swap table as swap cache (phase I)\"", (_6_12, _7_2), open=_BOUNDS),
    Change("locked_hit_keeps_miss", True, (6, 18), "mm/filemap.c:do_async_mmap_readahead",
           "mm: readahead: improve mmap_miss heuristic for concurrent faults", (_6_12, _7_2), open=_BOUNDS),
    Change("cr0_pg_clears_queue", False, (6, 19), f"{_X86}kvm_post_set_cr0",
           "KVM: x86: Don't clear async #PF queue when CR0.PG is disabled (e.g. on #SMI)", (_6_12, _7_2),
           ((6, 1, 160), (6, 12, 64), (6, 18, 5)),
           "the levels of 5.15 and 6.6; S84 showed the old on 6.16.12 and 6.17.13, the new on 6.18.5"),
    Change("cr0_pg_set_requests_ready", True, (6, 19), f"{_X86}kvm_post_set_cr0",
           "KVM: x86: Don't clear async #PF queue when CR0.PG is disabled (e.g. on #SMI)", (_6_12, _7_2),
           ((6, 1, 160), (6, 12, 64), (6, 18, 5)), "as cr0_pg_clears_queue"),
    Change("sync_swapin_shared", True, (7, 0), "mm/memory.c:do_swap_page, mm/swap_state.c:swapin_sync",
           "series \"mm, swap: swap table phase II\"", (_6_12, _7_2),
           open="the release; how a second toucher finds the folio locked while it is read (it blocked in runs)"),
    Change("en_needs_shared_area", True, (7, 2), "arch/x86/kvm/msrs.c:kvm_pv_enable_async_pf",
           "", (_6_12, _7_2), open="commit, and 6.19 to 7.1: S10 showed the old on 6.18.15, the new on 7.2.13"),
    Change("fault_around_one_hit", True, (7, 2), "mm/filemap.c:filemap_map_pages",
           "mm/filemap: count only the faulting address as a mmap hit", (_6_12, _7_2), open=_BOUNDS),
    Change("swap_reads_joined", True, (7, 3), "mm/page_io.c:swap_add_folio",
           "", (_7_2, _7_3), open="the commit is not known; 7.2.13 lacks it, 7.3.4 has it"),
    Change("vmexit_needs_request", False, (7, 4), f"{_X86}kvm_queue_exception_vmexit",
           "KVM: x86: Request event processing for exception VM-Exits", (_7_2, _7_3), ((6, 12, 117), (7, 3, 2)),
           "the levels of 6.12 and 7.3 are by the packages' changelogs; 6.1.192 and 7.2.13 lack it"),
)  # fmt: skip
