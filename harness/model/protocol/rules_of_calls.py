# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules about calls of handle_mm_fault, and about what they have left behind in the host's memory."""

from __future__ import annotations

from harness.model.events import Kind
from harness.model.protocol.rule import Rule

_APF = "virt/kvm/async_pf.c:"

CALLS_AND_LEFTOVERS: tuple[Rule, ...] = (
    Rule(
        "D57",
        "Who lets go of mmap_lock to have its fault repeated waits for the page first, and not with mmap_lock held.",
        "D57, A.4; mm/filemap.c:__folio_lock_or_retry, lock_folio_maybe_drop_mmap",
        context=("early_retries",),
        kinds=(Kind.MM_FAULT, Kind.MM_FAULT_RET),
    ),
    Rule(
        "D58",
        "No fault comes back to be repeated if its flags do not allow that.",
        "D58, A.4; mm/gup.c:faultin_page, mm/filemap.c:__folio_lock_or_retry, lock_folio_maybe_drop_mmap",
        context=("forbidden_retries",),
        kinds=(Kind.MM_FAULT, Kind.MM_FAULT_RET),
    ),
    Rule(
        "D59",
        "A worker wakes no vCPU that sleeps for the page of a fault in handle_mm_fault.",
        f"D59, B.6; {_APF}async_pf_execute, virt/kvm/kvm_main.c:kvm_vcpu_block, kernel/exit.c:rcuwait_wake_up",
        context=("stray_wakes",),
        kinds=(Kind.MM_FAULT, Kind.MM_FAULT_RET, Kind.WORK, Kind.WORK_END, Kind.WAKING),
    ),
    Rule(
        "D60",
        "The fault that maps an anonymous page takes it out of the swap cache if it is a write's, and no other fault "
        "does.",
        "D60, A.3; mm/memory.c:do_swap_page (should_try_to_free_swap), do_wp_page",
        context=("swap_slots",),
        kinds=(Kind.MM_FAULT, Kind.MM_FAULT_RET),
    ),
    Rule(
        "D61",
        "Each page of the guest that is there is on a list from which the host can reclaim it.",
        "D61, A.3; mm/swap_state.c:__read_swap_cache_async, mm/filemap.c:filemap_add_folio (folio_add_lru)",
        context=("unlisted_pages",),
    ),
    Rule(
        "D62",
        "A page whose swap slot was freed is dirty: there is no other copy of it.",
        "D62, A.3; mm/swapfile.c:folio_free_swap, mm/shmem.c:shmem_swapin_folio (folio_mark_dirty)",
        context=("clean_pages",),
    ),
    Rule(
        "D63",
        "No vCPU whose VMM wants it out of KVM_RUN goes to sleep there with a signal pending.",
        "D63, B.6; virt/kvm/kvm_main.c:kvm_vcpu_check_block (signal_pending), arch/x86/kvm/x86.c:vcpu_run",
        context=("deaf_vcpus",),
        kinds=(Kind.WAKING, Kind.OUT, Kind.IN),
    ),
    Rule(
        "D64",
        "Each page of the guest that is there is charged to the cgroup of its VMM, whoever has read it from swap.",
        "D64, A.3; mm/memcontrol.c:mem_cgroup_swapin_charge_folio, mm/swap_state.c:__read_swap_cache_async",
        context=("pages_of_others",),
    ),
    Rule(
        "D65",
        "Each page that comes back from swap is a refault of its cgroup.",
        "D65, A.3; mm/workingset.c:workingset_refault, mm/swap_state.c:__read_swap_cache_async",
        context=("lost_refaults",),
    ),
    Rule(
        "D66",
        "Each page of the guest that is there is up to date, and backed by swap if it is no page of a file.",
        "D66, A.3; mm/memory.c:do_cow_fault (__SetPageUptodate), mm/swap_state.c:__read_swap_cache_async "
        "(__folio_set_swapbacked)",
        context=("misflagged_pages",),
    ),
    Rule(
        "D67",
        "At an exit of its L2 L1 does not find in its VMCB the event that it has injected.",
        "D67, B.12; arch/x86/kvm/svm/nested.c:nested_sync_control_from_vmcb02, nested_svm_vmexit",
        context=("events_left",),
    ),
    Rule(
        "D68",
        "What is in a page of the guest is in it when reclaim has taken it, and it was read again.",
        "D68, A.3; include/linux/kvm_host.h:kvm_release_faultin_page, mm/vmscan.c:shrink_folio_list",
        context=("lost_words",),
    ),
    Rule(
        "D69",
        "A worker that has found the done list empty kicks its vCPU before DONE, if no ACK is owed.",
        f"D69, B.6; {_APF}async_pf_execute, arch/x86/kvm/x86.c:kvm_arch_async_page_present_queued",
        kinds=(Kind.WORK, Kind.DONE, Kind.KICK, Kind.MM_FAULT_RET, Kind.RDY, Kind.ACC, Kind.WRMSR),
    ),
    Rule(
        "D70",
        "A token that the guest has found and not zeroed yet stays in its shared area.",
        "D70, B.7; arch/x86/kvm/x86.c:apf_pageready_slot_free, apf_put_user_notpresent",
        context=("overwritten_tokens",),
    ),
    Rule(
        "D71",
        "Who does not want to wait for a page asks for it once, and a fault that is repeated comes to its end.",
        "D71, A.4; virt/kvm/kvm_main.c:hva_to_pfn_slow, mm/filemap.c:__folio_lock_or_retry "
        "(fault_flag_allow_retry_first)",
        context=("asked_again",),
        kinds=(Kind.MM_FAULT, Kind.MM_FAULT_RET, Kind.PF, Kind.TRY, Kind.ENTRY),
    ),
    Rule(
        "D72",
        "Who waits for the read of a page has let go of the VMM's mmap_lock.",
        "D72, A.4; mm/filemap.c:__folio_lock_or_retry, lock_folio_maybe_drop_mmap, mm/gup.c:faultin_page",
        context=("kept_lock",),
    ),
    Rule(
        "D73",
        "Each call of handle_mm_fault that is not to be repeated is a fault that the VMM's cgroup counts.",
        "D73, A.4; mm/memory.c:handle_mm_fault, mm_account_fault (count_memcg_event_mm)",
        context=("uncounted_faults",),
        kinds=(Kind.MM_FAULT_RET,),
    ),
    Rule(
        "D74",
        "Who asks for a page of a userfaultfd sleeps as it asks to until it is there, and finds it as it asked for.",
        "D74, A.4; fs/userfaultfd.c:userfaultfd_get_blocking_state, userfaultfd_wake_function, "
        "mm/userfaultfd.c:mfill_atomic_install_pte",
        context=("userfault_waits",),
        kinds=(Kind.MM_FAULT, Kind.MM_FAULT_RET, Kind.OUT, Kind.IN),
    ),
    Rule(
        "D75",
        "Each page that comes into the swap cache is counted there as a file's, as it is when it leaves.",
        "D75, A.4; mm/swap_state.c:add_to_swap_cache, __swap_cache_alloc, __delete_from_swap_cache",
        context=("uncounted_pages",),
    ),
)
"""In the order of their ids, behind all others."""
