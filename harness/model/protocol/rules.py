# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that every trace of KVM's asynchronous page faults must obey, as data, one entry each.

RuleContext (rule_context.py) is what a rule may need to know besides the trace.  The automaton (checker.py and the
*_rules modules) enforces the rules, and ``apf rules`` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.model.events import Kind
from harness.model.protocol.rule import Rule
from harness.model.protocol.rule_context import FaultState, InitialVcpu, Interval, LoggedStart, PageAfter, RuleContext
from harness.model.protocol.rules_of_calls import CALLS_AND_LEFTOVERS

__all__ = ["RULES", "FaultState", "InitialVcpu", "Interval", "LoggedStart", "PageAfter", "Rule", "RuleContext"]

_APF = "virt/kvm/async_pf.c:"
_X86 = "arch/x86/kvm/x86.c:"
_MMU = "arch/x86/kvm/mmu/mmu.c:"

_TABLE: tuple[Rule, ...] = (
    Rule(
        "D01",
        "Each TRY of a vCPU becomes exactly one of NP, REP or FAIL; FAIL only with 64 entries queued (a pending "
        "wake-all counts) or when the work allocation failed.",
        f"D01, B.4; {_MMU}kvm_faultin_pfn, {_APF}kvm_setup_async_pf",
        kinds=(Kind.TRY,),
    ),
    Rule(
        "D02",
        "TRY, NP, REP, RDY and INJ of a vCPU are emitted by its own KVM_RUN thread, outside guest mode; "
        "DONE by a kworker.",
        f"D02, B.4, B.6, B.7; {_APF}async_pf_execute, {_X86}vcpu_enter_guest",
    ),
    Rule(
        "D03",
        "token & 0xfff is the vCPU's id; token >> 12 is in 1..0xFFFFF.",
        f"D03, B.1; {_MMU}alloc_apf_token",
    ),
    Rule(
        "D04",
        "Ids of successive NPs grow by 1 plus the number of FAILs between them, 0xFFFFF is followed by 1, the first "
        "after vCPU creation is 1, and neither reset nor EN writes restart them.",
        f"D04, B.1; {_MMU}alloc_apf_token",
    ),
    Rule(
        "D05",
        "Each NP is followed by exactly one RDY of the same token, or by a clear of its vCPU.",
        f"D05, B.7, B.10; {_APF}kvm_check_async_pf_completion",
    ),
    Rule(
        "D06",
        "RDY of a token has a live NP of the same vCPU, token and address.",
        f"D06, B.7; {_X86}kvm_arch_async_page_present",
    ),
    Rule(
        "D07",
        "At most one live NP per vCPU and guest frame.",
        f"D07, B.1, B.4; {_X86}kvm_add_async_pf_gfn, kvm_find_async_pf_gfn",
    ),
    Rule(
        "D08",
        "REP only for a frame with a live NP on that vCPU, and it injects no token.",
        f"D08, B.4; {_MMU}kvm_faultin_pfn",
    ),
    Rule(
        "D09",
        "At most 64 entries are queued on a vCPU.",
        f"D09, B.1; {_APF}kvm_setup_async_pf (ASYNC_PF_PER_VCPU)",
    ),
    Rule(
        "D10",
        "NP precedes the DONE of its work.",
        f"D10, B.4; {_APF}kvm_setup_async_pf",
        kinds=(Kind.DONE,),
    ),
    Rule(
        "D11",
        "DONE precedes the first ENTRY of the vCPU after the RDY of its work (it may follow the RDY).",
        f"D11, B.6; {_APF}kvm_flush_and_free_async_pf_work",
        kinds=(Kind.DONE, Kind.ENTRY),
        needs="always_flush_work",
    ),
    Rule(
        "D12",
        "As many DONEs of an address as NPs of it that were not cancelled.",
        f"D12, B.6, B.10; {_APF}async_pf_execute",
        kinds=(Kind.DONE,),
    ),
    Rule(
        "D13",
        "A token NP has exactly one INJ of #PF with code 0, not reinjected, before the vCPU's next ENTRY; "
        "a halt NP none.",
        f"D13, B.11, B.15; {_X86}kvm_arch_async_page_not_present, kvm_check_and_inject_events",
        kinds=(Kind.INJ, Kind.ENTRY, Kind.OUT),
        note="exceptions: reset before the entry; migration between NP and entry; nested delivery",
    ),
    Rule(
        "D14",
        "pf_guest grows by the number of token NPs (plus guest #PFs that KVM emulated: none with TDP).",
        f"D14, B.11, B.14; {_X86}kvm_inject_page_fault",
        context=("pf_guest",),
        kinds=(Kind.INJ,),
    ),
    Rule(
        "D15",
        "The vCPU's LAPIC accepts int_vec once for each RDY of a token NP while APF is enabled and for each wake-all, "
        "and for nothing else.",
        f"D15, B.7; {_X86}kvm_arch_async_page_present",
        kinds=(Kind.ACC, Kind.ENTRY),
    ),
    Rule(
        "D16",
        "The guest counts as many hypervisor callback interrupts as the LAPIC accepted; RDY of a halt NP adds none.",
        "D16, C; arch/x86/kernel/kvm.c:sysvec_kvm_asyncpf_interrupt (guest)",
        context=("hyp", "guest_boots"),
        kinds=(Kind.ACC,),
    ),
    Rule(
        "D17",
        "Between two RDYs with interrupt of one vCPU it ENTERs at least once (the guest must zero the token).",
        f"D17, B.7; {_X86}kvm_arch_can_dequeue_async_page_present",
        kinds=(Kind.ACC, Kind.ENTRY),
    ),
    Rule(
        "D18",
        "Of the RDYs between two ENTRIES at most one has an interrupt, and it is the last.",
        f"D18, B.7; {_APF}kvm_check_async_pf_completion",
        kinds=(Kind.ACC, Kind.ENTRY),
    ),
    Rule(
        "D19",
        "Between two RDYs with interrupt there is an ACK, unless the second completion found an empty done list.",
        f"D19, B.2, B.7; {_X86}kvm_set_msr_common, {_APF}async_pf_execute",
        strict=False,
        kinds=(Kind.ACC, Kind.WRMSR, Kind.DONE),
    ),
    Rule(
        "D20",
        "One wake-all RDY (token 0xffffffff, gva 0) for each effective EN enable that found an empty done list.",
        f"D20, B.9; {_APF}kvm_async_pf_wakeup_all",
        kinds=(Kind.WRMSR,),
        note="host-initiated EN writes are not traced by KVM: the decoder adds them as WRMSR",
    ),
    Rule(
        "D21",
        "No TRY from a context with IF=0, in an STI or MOV SS shadow, or during event delivery.",
        f"D21, B.5; {_X86}kvm_can_do_async_pf",
        context=("faults",),
        partly=True,
    ),
    Rule(
        "D22",
        "No token at CPL0 unless EN bit 1, none unless EN bits 0 and 3, none with CR0.PG=0 (5.10 does that).",
        f"D22, B.5; {_X86}kvm_can_deliver_async_pf",
        context=("faults",),
        kinds=(Kind.INJ,),
        partly=True,
    ),
    Rule(
        "D23",
        "No TRY with a user-space LAPIC; with HLT exits disabled no halt NP, and no REP at CPL0 without SEND_ALWAYS.",
        f"D23, B.5; {_X86}kvm_can_do_async_pf",
        context=("lapic_in_kernel", "hlt_exits"),
        partly=True,
    ),
    Rule(
        "D24",
        "After a halt NP or REP the thread does not ENTER before a completion, interrupt, signal or reset.",
        f"D24, B.8; {_X86}vcpu_block, kvm_arch_vcpu_runnable",
        kinds=(Kind.ENTRY, Kind.OUT, Kind.VIRQ),
    ),
    Rule(
        "D25",
        "A halt for a missing page emits no kvm_vcpu_wakeup and leaves halt_exits alone; 5.10 emits kvm_vcpu_wakeup.",
        "D25, B.8; virt/kvm/kvm_main.c:kvm_vcpu_block, kvm_vcpu_halt",
        context=("kvm_stats", "guest_hlts", "halts"),
        kinds=(Kind.WAKEUP, Kind.ENTRY),
        partly=True,
    ),
    Rule(
        "D26",
        "No RDY while the VMM is not in KVM_RUN for that vCPU.",
        f"D26, B.16; {_X86}vcpu_enter_guest",
        context=("stopped",),
    ),
    Rule(
        "D27",
        "After EN=0 or a reset no RDY for the tokens that were live; running workers emit DONE before "
        "the clear returns.",
        f"D27, B.10; {_APF}kvm_clear_async_pf_completion_queue",
        kinds=(Kind.WRMSR,),
    ),
    Rule(
        "D28",
        "No kernel trouble in a Linux guest's log, such as \"Host injected async #PF\"; none in the host's log, such "
        "as a WARN from kvm_del_async_pf_gfn, kvm_flush_and_free_async_pf_work or faultin_page.",
        "D28, C; arch/x86/kernel/kvm.c:__kvm_handle_async_pf (guest)",
        context=("guest_trouble", "host_trouble"),
        partly=True,
    ),
    Rule(
        "D29",
        "After RDY no further fault of that vCPU on the page before an invalidation of it.",
        f"D29, B.7; {_MMU}kvm_arch_async_page_ready",
        strict=False,
        kinds=(Kind.PF, Kind.UNMAP),
        note="not for SMM, paging-mode or CR3 changes; before 5.13 a probe of ours stands for kvm_unmap_hva_range",
    ),
    Rule(
        "D30",
        "nowait: before TRY the vCPU thread read the page, or another holds it locked, which has it in the cache and "
        "submits it before its call of handle_mm_fault ends. noio: between PF and NP the vCPU thread reads nothing "
        "from swap or file.",
        "D30, A.2, A.4; mm/memory.c:do_swap_page, mm/filemap.c:filemap_fault, mm/readahead.c:page_cache_ra_unbounded",
        context=("read_devices", "slots", "single_toucher"),
        kinds=(Kind.PF, Kind.BIO),
        note="a LOOP page, read-ahead on a hit and the blocking fallback are excepted",
    ),
    Rule(
        "D31",
        "A fault that became NP is no major fault of the vCPU thread.",
        "D31, A.10; mm/memory.c:mm_account_fault",
        context=("major_faults", "sync_majors"),
        kinds=(Kind.PF, Kind.MM_FAULT_RET),
        partly=True,
    ),
    Rule(
        "D32",
        "page-cluster=0, anonymous swap, no userfaultfd and a single toucher: no TRY.",
        "D32, A.5; mm/swap_state.c:swap_cluster_readahead, mm/page_io.c:swap_readpage",
        needs="do_poll",
        variants=("nowait",),
        context=("page_cluster", "memory", "single_toucher", "userfaultfd"),
    ),
    Rule(
        "D33",
        "Guest RAM on shmem without userfaultfd: no TRY.",
        "D33, A.7; mm/shmem.c:shmem_swapin_folio",
        variants=("nowait",),
        context=("memory", "userfaultfd"),
    ),
    Rule(
        "D34",
        "Anonymous RAM on a synchronous swap device (zram, brd, pmem) and a single toucher: no TRY.",
        "D34, A.4; mm/memory.c:do_swap_page (SWP_SYNCHRONOUS_IO)",
        variants=("nowait",),
        context=("memory", "swap_synchronous", "single_toucher", "userfaultfd"),
    ),
    Rule(
        "D35",
        "pf_taken - pf_fixed - pf_spurious - pf_emulate grows by REP + NP - RDYs whose prefetch fixed at least, by PF "
        "but for one of each page at most, and pf_taken by no more than PF.",
        "D35, B.14; arch/x86/kvm/mmu/mmu_internal.h:kvm_mmu_do_page_fault",
        needs="pf_taken_statistic",
        context=("kvm_stats", "fixable", "fixed_for_ready", "unfixed"),
        partly=True,
    ),
    Rule(
        "D36",
        "RDYs of a vCPU come in the order of completion.",
        f"D36, B.6; {_APF}async_pf_execute (list_add_tail to done)",
        kinds=(Kind.DONE,),
        note="completed between its worker's last return from a page fault and its DONE; what overlaps may be either",
    ),
    Rule(
        "D37",
        "With the LAPIC disabled no RDY while APF is enabled.",
        f"D37, B.7; {_X86}kvm_arch_can_dequeue_async_page_present, arch/x86/kvm/lapic.c:apic_set_spiv",
        kinds=(Kind.WRMSR,),
        note="5.10 before 5.10.119 does not defer",
    ),
    Rule(
        "D38",
        "TRY, NP and RDY of one fault carry the same gva, and the gfn of TRY is gva >> 12.",
        "D38, B.13; include/trace/events/kvm.h",
        kinds=(Kind.TRY,),
    ),
    Rule(
        "D39",
        "The host writes bytes 0..7 of the shared area only: flags 1 for a token, the token of the last RDY "
        "with interrupt.",
        f"D39, B.1, B.7; {_X86}apf_put_user_notpresent, apf_put_user_ready",
        context=("guest_tokens", "guest_readies", "shared_tail_zero", "shared_flags", "other_areas"),
        partly=True,
    ),
    Rule(
        "D40",
        "No endless cycle of NP and RDY on one page without a mapping (an unresolvable page).",
        f"D40, A.9; {_MMU}kvm_arch_async_page_ready",
        strict=False,
    ),
    Rule(
        "D41",
        "After DONE of a page in a private file mapping the page is anonymous.",
        f"D41, B.6; {_APF}async_pf_execute (FOLL_WRITE)",
        context=("private_file", "rss_anon_pages"),
    ),
    Rule(
        "D42",
        "A new int_vec is used by the RDYs after its MSR write, and only by those.",
        f"D42, B.2; {_X86}kvm_pv_enable_async_pf_int",
        kinds=(Kind.WRMSR, Kind.ACC),
    ),
    Rule(
        "D43",
        "A guest read resolved asynchronously leaves the host page writable and dirty; one resolved by the vCPU "
        "thread does not.",
        f"D43, B.6; {_APF}async_pf_execute (FOLL_WRITE)",
        context=("pages_after",),
    ),
    Rule(
        "D44",
        "While the shared area cannot be read, with APF enabled, there is no RDY.",
        f"D44, B.2; {_X86}apf_pageready_slot_free",
        kinds=(Kind.WRMSR,),
    ),
    Rule(
        "D45",
        "A token for an L2 becomes an exit of L2 to L1, a #PF with the token as ext_inf2, before any entry.",
        f"D45, B.12; {_X86}kvm_inject_page_fault, arch/x86/kvm/svm/nested.c:svm_check_nested_events",
        needs="l2_tokens_exit",
        kinds=(Kind.L2_ENTRY, Kind.L2_EXIT),
        note="findings F2 and F4; not where the VMM has written the vCPU's events in between (F3)",
    ),
    Rule(
        "D46",
        "L1 finds flags = 1 at the exit of its L2 that brings a token, and nowhere else: not at another exit, not at a "
        "#PF of its own, unless a token was kept from it (D45, D47).",
        f"D46, B.12; {_X86}apf_put_user_notpresent",
        context=("guest_flags",),
        partly=True,
    ),
    Rule(
        "D47",
        "No #PF with code 0 reaches an L2: what L2 does is no reason for one, and a token is L1's.",
        f"D47, B.12; {_X86}kvm_inject_page_fault",
        needs="l2_gets_no_token",
        kinds=(Kind.L2_ENTRY, Kind.L2_EXIT, Kind.INJ),
        note="finding F4; not where the VMM has written the vCPU's events in between (F3)",
    ),
    Rule(
        "D48",
        "A ready interrupt that is accepted while L2 runs ends L2 before the next entry, if L1 exits on interrupts.",
        f"D48, B.12; arch/x86/kvm/svm/nested.c:svm_check_nested_events, {_X86}kvm_check_and_inject_events",
        kinds=(Kind.L2_ENTRY, Kind.L2_EXIT, Kind.ACC),
        note="an entry may come between as long as a VMRUN, or a #PF that L2 is given, is not through",
    ),
    Rule(
        "D49",
        "When the VMM is gone all its memory is given back: no work is left or keeps the mm, no fault a page, a swap "
        "slot, the file, its lock or a userfaultfd.",
        f"D49, B.6; {_APF}async_pf_execute (mmput), {_APF}kvm_flush_and_free_async_pf_work, "
        "virt/kvm/kvm_main.c:hva_to_pfn_slow (put_page), mm/filemap.c:filemap_fault (fput, invalidate_lock), "
        "mm/swap_state.c:delete_from_swap_cache (put_swap_folio)",
        context=("memory_left", "slots_left", "works_left", "contexts_left"),
        partly=True,
    ),
    Rule(
        "D50",
        "A work that was completed before an exit of its vCPU has its RDY before the next ENTRY, unless the guest "
        "cannot be told.",
        f"D50, B.6, B.7; {_APF}async_pf_execute, {_X86}vcpu_enter_guest (KVM_REQ_APF_READY)",
        context=("lapic_stays", "area_stays"),
        kinds=(Kind.DONE, Kind.ENTRY, Kind.EXIT, Kind.ACC, Kind.VIRQ, Kind.WRMSR),
    ),
    Rule(
        "D51",
        "A guest that runs with interrupts on behind the ENTRY after a RDY with interrupt was given that interrupt.",
        f"D51, B.7; {_X86}kvm_check_and_inject_events (5.10: inject_pending_event)",
        context=("lapic_stays",),
        kinds=(Kind.ENTRY, Kind.EXIT, Kind.PF, Kind.VIRQ),
    ),
    Rule(
        "D52",
        "A vCPU does not fall asleep in vcpu_block while a work of it is completed, or its wake-all queued, and has no "
        "RDY.",
        f"D52, B.6, B.8; {_X86}kvm_vcpu_has_events, virt/kvm/kvm_main.c:kvm_vcpu_check_block",
        kinds=(Kind.DONE, Kind.OUT, Kind.EXIT, Kind.USER_EXIT, Kind.MM_FAULT),
    ),
    Rule(
        "D53",
        "A worker that completes a work of a vCPU which sleeps in vcpu_block wakes it before it does anything else.",
        f"D53, B.6; {_APF}async_pf_execute, virt/kvm/kvm_main.c:kvm_vcpu_wake_up",
        kinds=(Kind.DONE, Kind.OUT, Kind.USER_EXIT, Kind.MM_FAULT, Kind.WAKING),
    ),
    Rule(
        "D54",
        "A vCPU does not fall asleep in vcpu_block behind an NMI that it was given, nor behind the SIPI that starts "
        "it, nor in a halt while an interrupt waits for it.",
        f"D54, B.8; {_X86}kvm_vcpu_has_events, virt/kvm/kvm_main.c:kvm_vcpu_check_block",
        context=("lapic_stays",),
        kinds=(Kind.OUT, Kind.USER_EXIT, Kind.MM_FAULT, Kind.WAKING, Kind.ACC, Kind.VIRQ),
    ),
    Rule(
        "D55",
        "A worker wakes no sleeping vCPU that owes an ACK before it has completed its work.",
        f"D55, B.6; {_APF}async_pf_execute, {_X86}kvm_arch_async_page_present_queued",
        context=("ticks",),
        kinds=(Kind.WORK, Kind.DONE, Kind.OUT, Kind.USER_EXIT, Kind.MM_FAULT, Kind.WAKING, Kind.ACC, Kind.WRMSR),
    ),
    Rule(
        "D56",
        "The vCPU thread asks for no page between its ready event and the next entry: the prefetch comes first.",
        f"D56, B.7; {_APF}kvm_check_async_pf_completion, arch/x86/kvm/mmu/mmu.c:kvm_arch_async_page_ready",
        kinds=(Kind.DONE, Kind.RDY, Kind.MM_FAULT, Kind.USER_EXIT),
    ),
    *CALLS_AND_LEFTOVERS,
)

RULES: Mapping[str, Rule] = MappingProxyType({rule.id: rule for rule in _TABLE})
"""All rules by id, in order."""
