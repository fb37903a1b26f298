# SPDX-License-Identifier: GPL-2.0-or-later
"""As test_explored.py: captures of noio-6.1 that once disagreed with the model, and why the kernel may do that."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.judge.verdict import judge_capture
from harness.model.simulation import simulate
from harness.model.simulation.recorded import Recorded
from harness.model.simulation.situation import Situation
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture

SETTLED = {
    "read-ahead-remembered": "two vCPUs and six kworkers on a memfd, whose first windows tell what cluster read-ahead"
    " remembered (mm/swap_state.c:__swapin_nr_pages)",
    "found-while-it-was-copied": "UFFDIO_COPY wakes a vCPU that slept for the page, another finds it by GUP-fast, and"
    " only then does the ioctl return",
    "unlocked-before-it-runs": "who sleeps for the lock of a page that is copied runs again 2 ms behind its unlock, and"
    " a kworker has found the page mapped meanwhile (mm/shmem.c:shmem_mfill_atomic_pte)",
    "let-go-while-qemu-waits": "a worker keeps mmap_lock for a read that is held, QEMU waits for the lock in stop, and"
    " the agent says release all the same, by its other list (mm/page_io.c:swap_readpage)",
    "written-behind-page-mkwrite": "a shared write finds the page in the cache, and another maps it for reading while"
    " the file system is asked: finish_fault finds the PTE changed (mm/memory.c:do_shared_fault)",
    "halt-ended-by-another": "a page of before is completed before an L2 that is halted for another has slept: it runs"
    " on, and its L1 was owed nothing (arch/x86/kvm/x86.c:kvm_vcpu_has_events; S397)",
    "copied-behind-a-fault": "the agent is preempted between its decision and UFFDIO_COPY; vCPUs come for the page"
    " meanwhile, whose calls of handle_mm_fault fail at once (our own port) and have missed it (S380)",
    "asleep-with-a-signal": "QEMU stops a vCPU that is about to sleep for its lock: with a signal pending it stays"
    " runnable, and is traced as asleep (kernel/sched/core.c:__schedule; S346)",
    "neighbour-mapped-meanwhile": "a vCPU maps the pages around its own (mm/filemap.c:filemap_map_pages) between"
    " another's look at one of them and that one's call of handle_mm_fault, which finds it done (S305)",
    "found-by-gup-fast": "a vCPU is preempted in handle_mm_fault before its PTE is writable, and another faults on the"
    " page and fills neighbours meanwhile, by GUP-fast alone (arch/x86/kvm/mmu/mmu.c:__direct_pte_prefetch; S305)",
    "left-before-the-stop": "QMP stop waits for a vCPU that sleeps in a page fault; a work of another ends meanwhile,"
    " whose thread has left KVM_RUN, and enters behind two loads of a snapshot only (QEMU 7.2, softmmu/cpus.c:"
    "pause_all_vcpus)",
    "woken-when-kvm-run-fails": "a vCPU is woken by its page, and the VMM stops it, as KVM_RUN of another has failed,"
    " before its thread has a turn",
    "ends-only-with-another-vcpu-first": "who comes first decides whether the vCPU whose step lets the reads go sleeps"
    " for one itself; apf predict says so",
    "init-behind-a-queued-token": "a vCPU loses the processor behind its NP, and an INIT drops the #PF: where it sleeps"
    " then, for its works and for the SIPI, is no halt (arch/x86/kvm/x86.c:kvm_vcpu_reset)",
    "hung-before-its-reset": "a handler acknowledges nothing, and of two pages that come at once the second is never"
    " told; the program does not come to its reset, and is followed up to there",
    "zeroes-in-zswap": "a page of zeroes is swapped out to zswap, which keeps one number of it: nobody reads a device"
    " (mm/zswap.c:zswap_is_page_same_filled)",
    "timed-entry-not-come-to": "a program ends before the entries of its timed list, which have words that its host"
    " steps have, too: the agent's records of those are theirs",
    "written-where-mapped-beside": "a vCPU sleeps for its page, and has mapped those around it (do_fault_around): a"
    " write of another to one of them calls handle_mm_fault all the same, as it is mapped to be read (do_wp_page)",
    "around-below-the-pool": "the RAM file is mapped where a block of fault-around has the hole below the pool, which"
    " the first read-around has brought: a miss is taken back for each of its pages"
    " (mm/filemap.c:filemap_map_pages; S155)",
    "firmware-takes-a-new-page": "SeaBIOS gives one thread more a stack than at the boots before, of memory of a"
    " userfaultfd that nobody has touched",
    "last-word-not-done": "change-mm is the last word of its list, and waits in vain for vCPUs that look a second"
    " time behind an NMI: the trace goes on behind the agent's last line, and the host step has not ended",
    "host-step-of-a-dead-machine": "KVM_RUN of a vCPU fails, and the VMM stops another in its host step, which the"
    " agent ends later: nobody is told",
    "reader-behind-others": "four vCPUs map a page at once: what the call of each returned tells whether the one that"
    " has read it found it locked (mm/memory.c:do_swap_page; S427)",
    "qemu-waits-for-a-sleeper": "a stop is not answered: QEMU waits for a vCPU whose page is held",
}


@pytest.mark.parametrize("name", sorted(SETTLED))
def test_a_sound_kernel_with_the_noio_series_agrees(name: str) -> None:
    files = packed_capture(f"explored-{name}")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.status is Status.PASS, verdict.reason


def test_a_page_read_ahead_is_in_the_cache_only_when_it_is_submitted() -> None:
    """noio-6.1: a kworker is in filemap_fault for another page; it has not come to this one when a vCPU looks."""
    files = packed_capture("explored-not-yet-read-ahead")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.status is Status.PASS, verdict.reason


def test_what_the_host_remembered_is_what_its_first_windows_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight things that cluster read-ahead may have remembered one reads what was recorded: it is the first."""
    ranked: list[Sequence[Situation]] = []
    recordings: list[Recorded] = []

    def likeliest_first(starts: Sequence[Situation], recorded: Recorded) -> Sequence[Situation]:
        ranked.extend((starts, rank(starts, recorded)))
        recordings.append(recorded)
        return ranked[-1]

    rank = simulate._likeliest_first
    monkeypatch.setattr(simulate, "_likeliest_first", likeliest_first)
    files = packed_capture("explored-read-ahead-remembered")
    judge_capture(files, model_of(files, "noio"))
    starts, found = ranked[:2]
    assert len(starts) == len(found) > 1 and all(start in found for start in starts)
    since = [simulate._misread_ns(start, recordings[0]) for start in found]
    assert since == sorted(since, reverse=True) and since[0] > since[1]


def test_a_page_behind_the_target_of_a_window_of_swap_comes_by_itself() -> None:
    """noio-6.1: a kworker has read its own page and is preempted before the next of its window, which a vCPU does not
    find in the swap cache (mm/swap_state.c:swap_vma_readahead): refused, where it would have waited for the lock."""
    files = packed_capture("explored-behind-its-target")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.status is Status.PASS, verdict.reason


def test_a_page_of_swap_that_was_read_ahead_is_marked_only_behind_its_submission() -> None:
    """noio-6.1: who finds it between counts no hit, and nobody does later (swap_ra 6, swap_ra_hit 5;
    mm/swap_state.c:swap_vma_readahead)."""
    files = packed_capture("explored-marked-late")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.status is Status.PASS, verdict.reason


def test_a_thread_that_is_held_up_has_brought_none_of_its_window() -> None:
    """noio-6.1, S276: a kworker is preempted before swap_vma_readahead adds its pages; a vCPU that touches the
    neighbours misses each of them, and queues works that find them 48 ms later."""
    files = packed_capture("explored-neighbours-missed")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.status is Status.PASS, verdict.reason


def test_a_vcpu_that_leaves_for_a_stop_is_told_nothing_before_cont() -> None:
    """noio-6.1: twelve vCPUs are stopped, and a snapshot loaded: one had been woken by its page, another had mapped
    its own, and neither had entered the guest (arch/x86/kvm/x86.c:vcpu_run)."""
    files = packed_capture("explored-stopped-before-its-entry")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.status is Status.PASS, verdict.reason


def test_a_token_that_only_a_handler_has_found_was_in_the_word() -> None:
    """A reset keeps the guest from writing that it was told; in its next life the wake-all has vector 0, so that nobody
    acknowledges it, and a halt is never told (D05)."""
    files = packed_capture("explored-told-of-nobody-s-token")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.status is Status.FINDING, verdict.reason
    assert verdict.reason.startswith("F2"), verdict.reason


def test_a_vcpu_whose_l2_ran_sleeps_for_a_sipi_that_its_init_has_cost_it() -> None:
    """noio-6.1: the INIT comes while the host's processor is away.  L2 exits before, L1 has GIF = 0 then, which keeps
    the INIT pending, and the SIPI behind it is dropped (arch/x86/kvm/lapic.c:kvm_apic_accept_events)."""
    files = packed_capture("explored-sipi-behind-an-l2")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert (verdict.status, verdict.shown_faults) == (Status.FINDING, ("F2",)), verdict.reason


def test_a_token_of_an_l2_leaves_its_flag_where_en_names_the_area() -> None:
    """noio-6.1, S485: in a page of the pool, and not in the vCPU's own area, which stays as it was (D39, D46)."""
    files = packed_capture("explored-l2-area-in-the-pool")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert (verdict.status, verdict.shown_faults) == (Status.FINDING, ("F2",)), verdict.reason
