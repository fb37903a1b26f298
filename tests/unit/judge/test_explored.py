# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of random scenarios on a sound kernel that once disagreed with the model, and why the kernel may do that.

Each is the capture of the run.  What happened in it hung on luck, so that its scenario would not show it again.
"""

from __future__ import annotations

import json

import pytest

from harness.judge.verdict import judge_capture
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture

SETTLED = {
    "l2-leaves-in-its-halt": "5.10: the timer of an L1 ticks while its L2 is halted: the L2 exits from within the halt,"
    " which goes on (arch/x86/kvm/x86.c:kvm_vcpu_running)",
    "cleared-for-nothing": "the guest clears a token word that holds nothing, and leaves the next token there: no ready"
    " event can follow (arch/x86/kvm/x86.c:apf_pageready_slot_free)",
    "area-moved": "EN names another area while completions wait for the token word of the old one: they are told at the"
    " next acknowledgement (arch/x86/kvm/x86.c:kvm_pv_enable_async_pf)",
    "queued-and-reset": "the machine is reset between kvm_arch_async_page_not_present, which queues a token and counts"
    " pf_guest, and the entry that would inject it (arch/x86/kvm/x86.c:kvm_vcpu_reset; 7.3.4)",
    "firmware-retries": "a device of QEMU's writes to a hole of the RAM file in the vCPU thread, while firmware boots:"
    " FAULT_FLAG_TRIED counts maj_flt (mm/memory.c:mm_account_fault; 5.10.262)",
    "area-reclaimed": "the shared area's page is reclaimed: KVM's write of the flags waits for it, and another page is"
    " ready before the entry behind the token (arch/x86/kvm/x86.c:apf_put_user_notpresent)",
    "refused-read-ahead": "the table of a dm-delay device is changed while a vCPU reads ahead: device mapper ends that"
    " bio with an error (drivers/md/dm.c:dm_submit_bio), and the page is read by itself",
    "area-reclaimed-5.10": "the same: KVM's write of the token makes a shared page dirty, so that its fault ends in"
    " VM_FAULT_RETRY, and counts as major when it is made again (5.10; mm/memory.c:fault_dirty_shared_page)",
    "interrupt-taken-by-a-reset": "a ready interrupt is accepted, the guest has IF=0, and the machine is reset: nobody"
    " ever finds its token (arch/x86/kvm/lapic.c:kvm_lapic_reset)",
    "loop-on-shmem": "a page of a memfd cannot be read: an error of handle_mm_fault is asynchronous whatever the memory"
    " (virt/kvm/kvm_main.c:hva_to_pfn), token and ready 106 times, until the machine is reset",
    "two-releases": "two timed entries with the same word: the record of the first is not the second's (five vCPUs wait"
    " for one page of a userfaultfd, which is copied while the machine stands; 6.12)",
    "failed-meanwhile": "KVM_RUN fails on one vCPU while another is in a loop of token and ready, which the VMM ends"
    " after five rounds (6.12, memfd)",
    "injected-and-reset": "a vCPU is preempted behind its NP: the page is ready and the token injected, but a signal"
    " for a reset prevents the entry with it (7.3; arch/x86/kvm/x86.c:kvm_vcpu_exit_request)",
    "init-and-reset": "a vCPU sleeps in the reset of an INIT, another makes a triple fault, for which SVM gives it an"
    " INIT that sleeps as well (svm.c:shutdown_interception): the machine is reset when both are awake",
    "reset-before-loadvm": "a machine that stands is saved, reset and loaded: no vCPU lives anew, works are dropped,"
    " and the wake-all of the load waits for the token word of before the snapshot (7.3)",
    "zeros-saved-from-zram": "savevm has read a page of zeros from zram (5.10 maps it for reading): it has no slot any"
    " more, loadvm does not write it, and the guest's write is a minor fault (migration/ram.c:ram_handle_zero)",
    "stopped-for-an-init": "QMP stop waits for a vCPU that sleeps in the reset of an INIT: the work of another's halt"
    " ends when its thread has left KVM_RUN, and loadvm drops it (7.3; arch/x86/kvm/x86.c:vcpu_block)",
    "loaded-while-ejected": "a snapshot is taken and loaded while a vCPU is ejected: nothing is done to that one"
    " (QEMU 7.2, hw/core/cpu-common.c: CPU_FOREACH), and it comes back with EN = 0",
    "wait-cut-off": "a vCPU that waits for pages is ejected and started again, twice: its wait starts again each time",
    "copied-in-reverse": "forty workers wait for pages of a userfaultfd: a call that was retried for one has asked for"
    " it before it was copied, and slept (fs/userfaultfd.c:handle_userfault)",
    "area-write-protected": "writeback has write-protected the shared area of a guest in a RAM file: KVM's own write to"
    " it is a minor fault of the vCPU thread (arch/x86/kvm/x86.c:apf_put_user_notpresent, mm/memory.c:do_page_mkwrite)",
    "hole-mapped-by-others": "a vCPU that writes to a hole of a private file has filled it with zeros, and is preempted"
    " before it locks it: another maps it around its own, for reading, and the copy is made in a second call"
    " (mm/memory.c:finish_fault; 5.10)",
    "held-by-who-maps-around": "a vCPU that reads maps what is cached around its page, and is preempted with the lock"
    " of a neighbour: another's write to that becomes asynchronous (mm/filemap.c:next_uptodate_folio; 7.3)",
    "hit-behind-a-window": "a vCPU is preempted in its call for a page that is in the swap cache, and looks it up when"
    " another has chosen a window: its hit widens the next one (mm/swap_state.c:swap_update_readahead; 7.3)",
    "hits-of-one": "two vCPUs are in swapin_nr_pages of rotational swap at once: only one has the hits, which it takes"
    " with atomic_xchg, but both read last_readahead_pages of before (mm/swap_state.c; 6.1)",
    "two-windows": "two vCPUs read ahead around one page at once: each submits what the other has not yet"
    " (mm/swap_state.c:__read_swap_cache_async), and both count PGMAJFAULT (mm/memory.c:do_swap_page)",
    "held-up": "a vCPU is preempted between swapcache_prepare and submit_bio: others find the page locked in the swap"
    " cache before it was read",
    "another-window": "two vCPUs miss two pages of a file at once: one reads the window of the other, and so that page"
    " (mm/filemap.c:do_sync_mmap_readahead writes ra->start, lets mmap_lock go and reads it again; 7.3)",
    "both-miss": "two vCPUs miss one page of a file at once: filemap_fault (mm/filemap.c) has counted the fault of each"
    " before either has brought the page",
    "three-retries": "three threads wait for one read and then each call handle_mm_fault with FAULT_FLAG_TRIED, which"
    " counts maj_flt whoever maps the page (mm/memory.c:mm_account_fault)",
    "mapped-before-its-retry": "a vCPU is preempted after VM_FAULT_RETRY: when it looks again (follow_page_mask)"
    " another has mapped the page, and it does not call handle_mm_fault once more",
    "shmem-on-zram": "shmem reads ahead on a synchronous device too (mm/shmem.c:shmem_swapin), and how far hangs"
    " on hits of before the run (mm/swap_state.c:swapin_nr_pages)",
    "until-paused": "QMP stop: what a vCPU does until it is told to pause still happens",
    "interrupt-before-retiring": "a timer interrupt comes with the entry behind a page fault: its handler runs before"
    " the access retires, and is injected again (reinjected) where an exit came between",
    "lock-held": "a kworker is preempted in filemap_fault with the page locked and read: another's folio_trylock fails,"
    " and map_pages passes the page by; and what a vCPU reads ahead at PG_readahead is not the page that it waits for",
    "mapped-while-it-read": "a write that had to read finds the PTE made by another (mm/memory.c:finish_fault:"
    " VM_FAULT_NOPAGE), so that GUP calls handle_mm_fault once more for do_wp_page",
    "mapped-by-another": "the ready event of another vCPU maps the page while this one is in a planned pause: its touch"
    " does not fault (arch/x86/kvm/x86.c:kvm_arch_async_page_ready)",
    "a-near-miss": "a vCPU misses in the swap cache and is preempted before it reads: another reads, and both count"
    " PGMAJFAULT; a nearer run of the model with one count too few was followed to no end",
    "mapped-before-its-entry": "a vCPU is preempted between its mapping of a page and its entry: another uses it"
    " meanwhile (arch/x86/kvm/mmu/mmu.c:direct_page_fault)",
    "own-memory": "a page of the program, long mapped, faults again though the host's PTE is there: writeback of the"
    " file behind guest RAM has cleaned it (mm/rmap.c:page_mkclean_one ends in an mmu notifier; 5.10)",
    "interrupt-behind-the-start": "the agent is done before the reset that it asked for comes: the next life of the"
    " boot CPU finds its host step over, and the wake-all's interrupt comes between that and the next touch",
    "waits-for-writeback": "a page of the program in a shared RAM file is being written back, which has cleaned its"
    " PTE: a write waits for that (mm/rmap.c:page_mkclean_one, mm/page-writeback.c:folio_wait_stable)",
    "window-taken": "a vCPU has chosen its window and is preempted before it reads: another reads half of it meanwhile,"
    " by a smaller window of its own (mm/swap_state.c:swap_vma_readahead)",
    "lock-until-mapped": "a kworker maps the page between a vCPU's get_user_page_fast_only and its call of"
    " handle_mm_fault, which finds nothing left to do, and counts",
    "tick-while-stopping": "the LAPIC timer expires while the guest masks it and writes a count of 0: the interrupt"
    " waits in the IRR (arch/x86/kvm/lapic.c:apic_timer_fn)",
    "unlocked-later": "a CPU stands between the trace of a read's end and the end of its bio: another thread finds the"
    " page locked meanwhile (block/blk-mq.c:blk_update_request)",
    "mapped-at-the-end": "a vCPU holds the lock of a page in a hole of the file until its call of handle_mm_fault has"
    " mapped it (mm/memory.c:do_shared_fault): another that comes between finds no PTE, and the lock taken",
    "window-of-two": "what the host read before makes the first window of cluster read-ahead one of two pages, so that"
    " the neighbour is not in it and the read is not polled for (mm/swap_state.c:__swapin_nr_pages)",
    "copied-by-both": "two vCPUs write a page that both have as the zero page: each copies it, nothing is locked, and"
    " pte_same keeps the first (mm/memory.c:wp_page_copy)",
    "mapped-around": "a fault on a neighbour maps the page (do_fault_around) while its own fault is in page_mkwrite:"
    " finish_fault says VM_FAULT_NOPAGE, and GUP calls again",
    "shmem-read-ahead": "shmem reads ahead by what the host read before: a window of two",
    "read-by-two": "two vCPUs read around one page at once: one has only the first page of its window in the cache"
    " when the other reads the rest (mm/readahead.c:page_cache_ra_unbounded); a worker copies a page meanwhile, so that"
    " a mapping that is made before the notifier's end is lost (kvm_mmu_invalidate_end)",
    "one-tick": "the timer expires twice before its interrupt can be taken: one bit of the IRR, one interrupt",
    "told-to-stop": "QMP stop comes while a vCPU waits for a page: gup_signal_pending (6.2) ends its fault with"
    " KVM_PFN_ERR_SIGPENDING, and it faults anew after cont",
    "preempted-while-it-maps": "a vCPU thread is preempted in kvm_arch_async_page_ready, another maps a page in the"
    " same page table meanwhile: the cmpxchg of the first fails (7.3; tdp_mmu_set_spte_atomic)",
    "fails-behind-a-stop": "a stop ends the wait for a page that cannot be read, and KVM_RUN fails at the second"
    " page fault of the access (7.3; virt/kvm/kvm_main.c:hva_to_pfn_slow, FOLL_INTERRUPTIBLE)",
    "told-before-it-looks": "the agent is done, and the guest takes a ready interrupt before it sees that",
    "zeros-between": "a window of pages that are filled with zeros, without a bio: another thread comes between its"
    " choice and its pages (7.3; mm/swap_state.c)",
    "saved-and-loaded": "savevm write-protects what is mapped (the dirty log), and loadvm unmaps nothing: a read does"
    " not fault, a write does once",
    "read-only-entry": "another vCPU has mapped the page for reading, the worker then makes the host's writable: the"
    " prefetch leaves the entry, and the write faults once more (7.3; tdp_mmu_map_handle_target_level)",
    "chosen-late": "four vCPUs read ahead in one VMA: one is preempted before it looks at what the VMA remembers,"
    " another reads meanwhile (mm/swap_state.c:swap_vma_readahead)",
    "cleared-by-paging": "a change of CR0.PG clears a work that was completed, which no event tells (5.10): the next"
    " one's ready event has not overtaken it, and the program waits for ever for the first",
    "loaded-in-another-order": "the second work is completed first, and told before loadvm drops the other one",
    "token-on-zram": "from 7.0 on a page that is read from zram is locked in the swap cache: another vCPU that touches"
    " it meanwhile gets a token (mm/swap_state.c:swapin_sync)",
    "page-by-page": "two vCPUs read around neighbours: one is preempted when the first page of its window is in the"
    " cache and submitted, and the other adds the rest (5.10; mm/readahead.c:page_cache_ra_unbounded)",
    "window-chosen-first": "a vCPU misses, chooses its window and is preempted before it adds a page: another reads"
    " around it, and what the file remembers is of the other (mm/filemap.c:do_sync_mmap_readahead)",
    "added-not-submitted": "a vCPU finds its page locked that another has added and not submitted yet, and gets a token"
    " (D30 waits for the other's call of handle_mm_fault)",
    "each-a-part": "two vCPUs read around each other's page at once: the bios of either are parts of one window (7.3)",
    "hole-filled-meanwhile": "a vCPU is preempted before it looks for its page, a hole of the file: the read-around of"
    " another has filled that meanwhile, of which no bio tells (7.3; mm/readahead.c:page_cache_ra_unbounded)",
    "log-after-the-trace": "a guest that the deadline stops goes on for seconds on a starved machine, after the trace"
    " was stopped and before its log is read: it clears the token by hand, which no event tells, and works that the"
    " trace leaves unfinished are completed",
    "l2-of-its-own": "an L2 without nested paging has direct tables of its own: what a ready event has mapped for L1"
    " faults there once more (5.10; mmu.c:kvm_calc_mmu_role_common, the role's guest_mode)",
    "later-unknown": "two vCPUs touch a page on a synchronous device: how many faults each has is a range",
    "slot-taken": "vector 0 is never taken, so the guest never zeroes the wake-all's token: KVM presents no other ready"
    " event (apf_pageready_slot_free), and each HLT ends at once, also after the trace (kvm_arch_vcpu_runnable)",
    "write-not-read": "another vCPU has mapped the page for reading, so that a read of it does not fault; the write"
    " after it does (error code: W)",
    "polled-and-lost-the-lock": "a vCPU polls for its own read, a worker has the page's lock when it comes back"
    " (VM_FAULT_RETRY), and the page is mapped when get_user_pages looks again: it has slept all the same",
    "waits-in-page-mkwrite": "a write fault on a page that is mapped for reading waits for the page's lock, which a"
    " worker has in its own page_mkwrite (fs/buffer.c:block_page_mkwrite), and finds the PTE changed"
    " (mm/memory.c:finish_mkwrite_fault)",
    "cluster-page-by-page": "swap_cluster_readahead takes slot after slot: one vCPU reads the first of its window,"
    " and another the second before it comes to it",
    "window-chosen-before-it-was-read": "three vCPUs miss one page: who is first to ask swapin_nr_pages is not who"
    " reads first",
    "reset-of-two": "two vCPUs race for a page, and the machine is reset: each lives again from where its next life was"
    " seen, and is paused before (QEMU 7.2, softmmu/runstate.c:main_loop_should_exit)",
    "reset-with-four-vcpus": "a vCPU is reset with a token outstanding while two others read the same page",
    "lock-read-too-late": "a vCPU reads the page before the process of the host word lock-read comes to it: that only"
    " waits for the lock (mm/filemap.c:filemap_update_page)",
    "locked-in-the-swap-cache": "a vCPU is preempted in do_swap_page with the folio locked and no PTE yet: another"
    " waits for it, and the slot is freed only then (mm/memory.c:do_swap_page)",
    "cached-before-submitted": "a vCPU is preempted between __read_swap_cache_async and its plug's end: another that"
    " has missed too waits until the page is in the cache, and finds it there; it was submitted later",
    "slot-1": "the read before was of slot 0 for nobody: a window of one page, which is polled for (do_poll)",
    "found-by-the-second": "two vCPUs touch a page: one misses and reads around it, the other comes when it is cached;"
    " a call without VM_FAULT_MAJOR has found its page",
    "held-to-the-end": "7.3 counts PSWPIN where reads end (mm/page_io.c:swap_read_end): not one that is held",
    "looked-behind-its-last-call": "after VM_FAULT_RETRY a vCPU is preempted, and a worker has mapped the page when it"
    " looks again: it does not call handle_mm_fault once more",
    "window-of-before": "the host's last window was of a larger page_cluster: half of it is the next, whatever"
    " page_cluster is now (mm/swap_state.c:__swapin_nr_pages)",
    "gives-the-lock-back": "a worker that woke has a page's lock while a vCPU tries it, and gives it back well before"
    " its call of handle_mm_fault ends: another worker finds it free",
    "last-hlt": "a vCPU enters the guest, the trace ends, it executes its last HLT, the counters are read",
    "slot-gone": "a page that was polled for is mapped, and its slot freed, when its bio is looked at (7.3)",
    "not-missed": "a vCPU is preempted before it looks into the swap cache: without VM_FAULT_MAJOR another had put the"
    " page there, and submitted it later",
    "mapped-after-its-retry": "IF=0: after VM_FAULT_RETRY the blocking attempt finds the page mapped by another",
    "not-over-a-reset": "an item that the reset forgot has no fault of the vCPU's next life",
    "cached-by-two": "two vCPUs read around one page of a file; the second adds what the first has not (7.3)",
    "first-window": "two vCPUs miss a page of shmem, both choose a window, and what the host read before makes them"
    " of one page (mm/swap_state.c:__swapin_nr_pages)",
    "mapped-before-its-end": "a vCPU is preempted in handle_mm_fault when it has mapped the page: a worker finds that",
    "flip-window": "a flip of CR0.PG with interrupts on has sti and cli in it (guest-images/probe/trap32.c:job32)",
    "ticks-while-halted": "the timer wakes a vCPU that halts with IF=0: it polls and halts again"
    " (arch/x86/kvm/x86.c:vcpu_block)",
    "chosen-by-both": "a vCPU chooses its window of cluster read-ahead after another that reads later",
    "both-miss-a-hole": "two vCPUs miss a page in a hole of the file at once, and both count PGMAJFAULT; the second to"
    " call finds it locked by the first, which has added it (mm/filemap.c:filemap_fault, FGP_CREAT)",
    "missed-a-hole-after-it": "the same, where the first to call adds it last",
    "late-in-page-mkwrite": "a write fault is preempted in ext4_page_mkwrite (7.3) before it locks the page: another"
    " writes it meanwhile, and the first waits for its lock (fs/buffer.c:block_page_mkwrite)",
    "window-of-l1": "a ready interrupt comes while L2 runs, and L1 has IF=0: KVM opens a window for itself by a virtual"
    " interrupt (svm.c:svm_set_vintr), and L1, which intercepts those, gets an exit that it did not ask for",
    "rest-of-the-window": "a vCPU has read its own page, the fourth of its window, and is preempted before the rest:"
    " another misses there and reads it (mm/swap_state.c:swap_vma_readahead)",
    "sixteen-for-three": "sixteen vCPUs on three processors wait for pages of a userfaultfd: their manager is preempted"
    " between its decision and UFFDIO_COPY, in which another asks for the page; an entry that would deliver a timer's"
    " interrupt is cancelled, and the next tick is accepted before that is injected again (5.10)",
    "chosen-at-once": "two vCPUs miss one page of swap at once: each reads what read-ahead remembers before the other"
    " has written it (mm/swap_state.c:swapin_nr_pages), and both count PGMAJFAULT; sixteen vCPUs go on from there",
    "prefetch-lost-to-a-neighbour": "eight vCPUs on a private file: two map the first pages of one page table before"
    " their ready events, and one loses (arch/x86/kvm/mmu/tdp_mmu.c:tdp_mmu_link_sp); it faults when it has its token",
    "invalidated-by-reclaim": "the notifier of a reclaim of another page ends while a vCPU is in a fault, which is"
    " retried for the count alone (arch/x86/kvm/mmu/mmu.c:is_page_fault_stale; 6.12): the event tells its begin only",
    "injected-and-not-entered": "a ready interrupt is injected, and the signal for a reset prevents the entry: it is"
    " never taken (arch/x86/kvm/x86.c:kvm_vcpu_exit_request, lapic.c:kvm_lapic_reset)",
    "filled-with-zeros-late": "6.12: a page of the zero map is in the swap cache, and locked, before"
    " swap_read_folio_zeromap has filled it: another vCPU's folio_trylock fails",
    "used-until-zapped": "a vCPU copies the zero page, and its notifier waits: until it has zapped the page another"
    " reads it there (virt/kvm/kvm_main.c:__kvm_handle_hva_range, whose event is its begin)",
    "stopped-before-its-access": "a fault has mapped its page, but a host interrupt and QMP stop come before the"
    " instruction runs again: savevm write-protects the page meanwhile, and the write faults once more",
    "stale-until-its-end": "a vCPU copies the zero page and is preempted in its notifier: two others fault on the page"
    " again and again, and the last fault of one, before a tick, was as stale as the rest (is_page_fault_stale; 6.12)",
    "both-miss-zeros": "two vCPUs miss pages of the zero map in one window: each adds what the other has not, and no"
    " bio tells (6.12; mm/page_io.c:swap_read_folio_zeromap)",
    "reset-of-an-l1": "int3 without an IDT: a guest with EFER.SVME has its #GP intercepted, so that the host injects"
    " it, and the #DF behind it, before the shutdown (arch/x86/kvm/svm/svm.c:gp_interception)",
    "reset-in-its-handler": "a machine is reset when a wake-all's interrupt was given and its handler has not written"
    " it down; the next life's has the same token",
    "reclaimed-again": "the agent reclaims pages that two vCPUs read in host steps, again and again: when the notifier"
    " of reclaim is over no event tells, and a fault that counts as stale for its sake may not (6.12)",
    "among-sixteen": "sixteen vCPUs on six swapped pages: one is preempted between its choice of a window and its place"
    " in the swap cache, and one has come before (mm/swap_state.c:__read_swap_cache_async)",
    "nearly-full": "swap is more than half full, and two vCPUs read ahead in one VMA for seconds: other reads decide"
    " only between runs of the model that are as far from what was seen (5.10)",
    "loaded-zeros": "loadvm writes no page of zeros (migration/ram.c): the zero page of before is still mapped, and is"
    " copied by the first write",
    "locked-by-the-first": "6.12: a page without blocks is in the windows of two vCPUs, and the first to add it has not"
    " filled it when the call of the second is over (mm/readahead.c:page_cache_ra_unbounded)",
    "bio-over-anothers-page": "6.12: a vCPU has missed a page without blocks, and is preempted: another adds that page,"
    " as its bio goes over it (fs/ext4/readpage.c:ext4_mpage_readpages), and is itself one that missed",
    "chosen-between": "6.12, rotational: a vCPU is preempted before it chooses its window, and another chooses two"
    " meanwhile: it comes between these (mm/swap_state.c:swapin_nr_pages)",
    "swap-half-full": "5.10, three of four slots are used: who maps a page frees its slot, so that the write behind it"
    " copies nothing (mm/memcontrol.c:mem_cgroup_swap_full, mm/memory.c:do_wp_page)",
    "ended-before-its-reset": "a program comes to its end before the agent is to reset its machine: what it did is"
    " followed (two vCPUs in one window, and a snapshot; 6.1)",
    "flipped-before-it-began": "CR0.PG is switched off and on while the worker of a SCHED_FIFO vCPU has not begun: the"
    " work is cancelled without a DONE, and the frame gets a token again (5.10; arch/x86/kvm/x86.c:kvm_post_set_cr0)",
    "init-before-its-program": "a machine is reset, and the program of its boot CPU gives another one an INIT that has"
    " begun to start and not come to its program: that life leaves a record in the log, and no write of an MSR (5.10)",
    "in-an-lru-batch": "5.10, zram: a page that was read past the swap cache still waits in a CPU's batch for its LRU"
    " list, and is copied by the write behind it (mm/memory.c:do_wp_page), while another vCPU faults again and again",
    "unlocked-in-order": "a bio of a file has ended, and its pages are unlocked one by one (6.1; fs/ext4/readpage.c:"
    "mpage_end_io): who maps around one that is still locked maps none behind it",
    "hit-before-window": "a vCPU chooses its window of swap just behind the hit of another, which changes what the VMA"
    " remembers (6.1; mm/swap_state.c:swap_cache_get_folio)",
    "cut-off": "three vCPUs go round in halts, as their pages cannot be read, until the deadline: what was under way"
    " then had no time (7.3, virt/kvm/async_pf.c:async_pf_execute)",
    "behind-the-end": "the same: the agent says that it collects some milliseconds before it stops the recording, and"
    " the guest goes round meanwhile",
    "cut-in-a-fault": "... in the middle of a page fault, between the return of handle_mm_fault and"
    " kvm_try_async_get_page (7.3)",
    "cut-before-its-worker": "... when a page's read had ended, and another worker had the processor of the one that"
    " waits for it; all three vCPUs sleep (7.3)",
    "nmi-of-each-vcpu": "S307 on a busy machine: inject-nmi takes 124 ms, and each vCPU has its NMI when its thread has"
    " left KVM_RUN for it, many rounds of a loop after the first (6.1; QEMU 7.2, cpus-common.c:do_run_on_cpu)",
    "saved-token": "a snapshot with a token that is queued: QEMU saves it as one that is injected, so that KVM's first"
    " injection of it is traced as a repeated one (6.1; QEMU 7.2, target/i386/machine.c:cpu_pre_save)",
    "cut-anywhere": "... while a page is on its way to each of them (7.3)",
    "asleep-when-kvm-run-fails": "6.1: KVM_RUN fails while another vCPU sleeps for its own read, as in the model",
    "told-nothing-when-kvm-run-has-failed": "7.3: a work ends while its vCPU sleeps for a page that cannot be read",
    "told-between-port-writes": "5.10: a vCPU is told of its page between two writes to the hotplug controller",
}


@pytest.mark.parametrize("name", SETTLED)
def test_a_sound_kernel_agrees(name: str) -> None:
    files = packed_capture(f"explored-{name}")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason


def test_a_read_that_nothing_lets_go_is_as_predicted_where_an_order_of_vcpus_has_it_so() -> None:
    """The thread is still in its page fault when all is over: vCPU 1 came first, and what the gate waits for, a
    repeated fault, comes only if vCPU 0 does."""
    files = packed_capture("explored-asleep-for-ever")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS and "the program never ends" in verdict.reason


def test_nobody_is_convicted_by_an_order_that_is_not_in_the_evidence() -> None:
    """Where a page of shmem is on the device nobody can tell."""
    files = packed_capture("explored-memfd-race")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.INCONCLUSIVE
    assert "in which order is not in the evidence" in verdict.reason
    died = judge_capture({**files, "end.json": ended(files, "qemu-died")}, model_of(files, "nowait"))
    assert died.status is Status.FAIL


def test_two_kworkers_bring_one_window_of_a_file_between_them() -> None:
    """noio-6.1: the first adds five pages and is preempted; the second, for the same page, adds the rest and submits
    it, and then the first submits its five (mm/readahead.c:page_cache_ra_unbounded)."""
    files = packed_capture("explored-one-window-of-two")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.word == "FINDING F2", verdict.reason


def test_a_vcpu_sleeps_behind_its_init_until_its_sipi_comes() -> None:
    """debian-6.1, S193: its worker ends while the INIT waits for it, and the CPU that sends the SIPI is preempted."""
    files = packed_capture("explored-init-sleeps")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.word == "FINDING F2", verdict.reason


def test_en_is_written_behind_a_completion() -> None:
    """noio-6.1, S341: a page is completed between the exit for the write of EN and its line, so that there is something
    on the done list, and no wake-all is queued."""
    files = packed_capture("explored-en-beside-a-completion")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.word == "FINDING F2", verdict.reason
    assert next(t for t in verdict.totals if t.name == "RDY_ALL").seen == 2


def test_a_token_of_an_l2_is_lost_though_another_page_is_ready_before_the_entry() -> None:
    """noio-6.1 (F3): the VMM rewrites the state, and the interrupt of the page before takes L2 out."""
    files = packed_capture("explored-lost-and-another-ready")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.word.startswith("FINDING"), verdict.reason


def test_each_slot_of_a_window_is_read_at_a_time_of_its_own() -> None:
    """noio-6.1: a kworker is preempted between the second and the third slot; the guest has not ended by its deadline,
    and all that was recorded is as predicted."""
    files = packed_capture("explored-slot-after-slot")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.status is Status.INCONCLUSIVE and "what was recorded is as predicted" in verdict.reason


@pytest.mark.parametrize(
    "name",
    [
        "among-works", "area-read-behind-token", "area-unreadable", "bio-over-a-hole", "copied-behind-the-look",
        "init-behind-a-ready-event", "issued-by-another",
        "lock-read-late", "overtaken-in-page-mkwrite", "passed-by", "reset-in-a-handler", "reset-in-its-start-up",
        "reset-on-zram", "slot-freed-meanwhile", "windows-of-kworkers", "woken-late", "worker-refused-read-ahead",
    ],
)  # fmt: skip
def test_a_sound_kernel_with_the_noio_series_agrees(name: str) -> None:
    """among-works: sixteen vCPUs on one page, whose works miss it before it is in the cache;
    area-read-behind-token: the vCPU thread reads the page of the shared area (x86.c:apf_put_user_notpresent) before
    a kworker reads that of the access; area-unreadable: its read fails, so that a fault at CPL 3 is a halt;
    bio-over-a-hole: what is behind a hole of a file is next on the device, and read by the same bio
    (fs/ext4/readpage.c:ext4_mpage_readpages); copied-behind-the-look: UFFDIO_COPY brings a page between
    get_user_page_fast_only and handle_mm_fault; issued-by-another: between a refused major fault and its token
    another vCPU reads around its page, and brings this one; lock-read-late: a vCPU looks between the begin of the
    host word lock-read and the read of the agent's process; init-behind-a-ready-event: S245, a vCPU is reset behind
    the ready event of a halt, so that INT is 0, and its INIT is told as vector 0; reset-in-a-handler: a vCPU has
    taken a ready interrupt, and is reset before its handler has logged it; reset-in-its-start-up: S303, a vCPU has
    logged that it begins, behind an INIT, and the machine is reset before it writes INT or EN; reset-on-zram: two
    vCPUs touch a page on
    zram, whose reads no event tells, and the machine is reset; slot-freed-meanwhile: a vCPU is preempted between
    two pages of its window, another maps the page that it is for; windows-of-kworkers: thirteen windows of cluster
    read-ahead, two of them chosen while another was: which ones is told by the pages that each call of
    handle_mm_fault has read; passed-by: a worker that gives a page's lock back is preempted, and a fault on the
    neighbour does not map it around; woken-late: a vCPU waits for a read, and runs again when two others have used
    the page; overtaken-in-page-mkwrite: a write fault has unlocked its page for page_mkwrite when another maps it
    for reading, and a worker has made it writable when it looks again; worker-refused-read-ahead: S272, a kworker's
    read-ahead comes while a dm-delay table is loaded, and the page is read by itself."""
    files = packed_capture(f"explored-{name}")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.status is Status.PASS, verdict.reason


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("request-outlives-an-init", "F1"),
        ("area-taken-from-an-l1", "F2"),
        ("area-read-by-an-l2", "F4"),
        ("l2-at-both-levels", "F2"),
    ],
)
def test_a_known_fault_shows_in_another_way(name: str, known: str) -> None:
    """request-outlives-an-init: a vCPU leaves KVM_RUN for a reset between a page fault that asks for a halt and its
    next vcpu_enter_guest (arch/x86/kvm/x86.c:vcpu_run): KVM_REQ_APF_HALT outlives the works and the INIT behind it, and
    the boot CPU waits for this vCPU in vain;
    area-taken-from-an-l1: the page of the shared area is reclaimed; L1 reads its words at the exit of its L2;
    area-read-by-an-l2: on 5.10 its L2 is given the #PF, and reads them in its handler, by tables of its own;
    l2-at-both-levels: an L2 touches one page at CPL 3, and later at CPL 0, for which a halt is due."""
    files = packed_capture(f"explored-{name}")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert (verdict.status, verdict.shown_faults) == (Status.FINDING, (known,)), verdict.reason


def test_an_eject_waits_for_a_vcpu_that_sleeps_in_a_page_fault() -> None:
    """noio-6.1: the read of its page would be let go behind the eject, by a vCPU that waits for it (QEMU,
    softmmu/cpus.c:cpu_remove_sync): the program never ends.  F2, because an L2 had made the page fault before."""
    files = packed_capture("explored-ejected-asleep")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert (verdict.status, verdict.shown_faults) == (Status.FINDING, ("F2",)), verdict.reason


def test_the_page_of_an_l2_with_direct_tables_is_mapped_for_whoever_runs_when_it_is_ready() -> None:
    """noio-6.1, an L2 without nested paging: its page is ready while L1 runs, and is mapped for L1
    (arch/x86/kvm/mmu/mmu.c:kvm_arch_async_page_ready asks only whether both tables are direct)."""
    files = packed_capture("explored-ready-in-l1")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.word == "FINDING F2", verdict.reason


def test_nobody_is_convicted_by_read_ahead_of_pages_that_lie_nobody_knows_where() -> None:
    files = packed_capture("explored-shmem-somewhere")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.INCONCLUSIVE
    assert "where pages of shared memory lie on the swap device" in verdict.reason


def test_a_virtual_interrupt_that_the_emulated_processor_calls_an_exception_is_nobody_elses_fault() -> None:
    """Its delivery to L2 needs tables that are not there; KVM delivers it again as what it was called, and that VMRUN
    fails (VMEXIT_INVALID), so that the probe guest panics."""
    files = packed_capture("explored-virtual-interrupt-lost")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.INCONCLUSIVE
    assert "the emulated processor" in verdict.reason and "0xff" in verdict.reason


def ended(files: dict[str, bytes], status: str) -> bytes:
    return json.dumps({**json.loads(files["end.json"]), "status": status, "reason": "signal 6"}).encode()


def test_a_guest_that_runs_on_past_the_trace_is_cut_short_and_not_wrong() -> None:
    """Its machine stood for seconds: what the log has of after the trace is no end that was predicted never to come."""
    files = packed_capture("explored-runs-on")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.INCONCLUSIVE and "did not come to its end" in verdict.reason


def test_l1_faults_for_its_shared_area_before_it_takes_the_interrupt_that_ended_its_l2() -> None:
    """noio-6.1: the page of the area is reclaimed, and its fault comes between kvm_nested_intr_vmexit and
    kvm_inj_virq; the access of the L2 has its page by then, and is not begun again before the interrupt (S308)."""
    files = packed_capture("explored-area-missed-at-the-exit")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert (verdict.status, verdict.shown_faults) == (Status.FINDING, ("F2",)), verdict.reason


def test_a_wait_in_vain_is_a_deadline_and_pages_that_nobody_puts_there_are_owed_to_nobody() -> None:
    """5.10 (F4): a token of an L2 goes into it, and the fourth that wait-np waits for never comes; the three pages that
    the manager of the userfaultfd holds are missing to the end."""
    files = packed_capture("explored-waited-in-vain")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.word == "FINDING F4", verdict.reason


def test_whether_a_program_ends_may_hang_by_an_order_that_a_trace_with_lost_events_does_not_tell() -> None:
    """6.1: the program clears the token word by hand, once too early on a busy machine: the second token is never told,
    every HLT ends at once, and a million events are lost (the trace is cut to its begin here)."""
    files = packed_capture("explored-word-left-to-the-program")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.INCONCLUSIVE and "trace events" in verdict.reason, verdict.reason


def test_an_interrupt_that_a_reset_took_is_owed_to_no_vcpu_that_is_never_started_again() -> None:
    """6.12 (F1): vCPU 2 has left KVM_RUN between kvm_inj_virq and the entry when the machine is reset; behind it the
    boot CPU waits in vain for vCPU 1, and never starts vCPU 2."""
    files = packed_capture("explored-interrupt-of-a-vcpu-never-started")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.word == "FINDING F1", verdict.reason
