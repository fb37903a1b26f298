# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of sound kernels whose threads read windows that overlap: who added a page, who found it, and when."""

from __future__ import annotations

import pytest

from harness.evidence.decode import decode
from harness.judge.let_go_late import FORESEEN, foreseen
from harness.judge.verdict import judge_capture
from harness.run.judge_folder import model_of
from harness.run.model_named import model_named
from harness.status import Status
from tests.unit.judge.packed import packed_capture

SETTLED = {
    "folio-of-a-reclaimed-page": "one page of a large folio is reclaimed, and the folio written back: another of its"
    " pages, which a worker had made dirty, is clean (mm/rmap.c:try_to_unmap_one; 7.3)",
    "half-of-the-swap-area": "2,048 of 4,095 slots are used: more than half, so that a read's fault frees its slot",
    "window-ends-at-its-mark": "a read-around ends just before a marked page: the hit there merges two windows, of"
    " which the second half is ahead (mm/readahead.c:ondemand_readahead, readit)",
    "a-window-of-zeroes": "a page of zeroes is read by no bio, and yet another thread's window is chosen behind its own"
    " (mm/page_io.c:swap_read_folio_zeromap; 7.3)",
    "a-page-of-zeroes-chooses-behind-others": "... and behind another thread's hit, before the bio of its own neighbour"
    " (mm/swap_state.c:swap_cluster_readahead; 7.3)",
    "added-before-its-bio": "a page of a window is in the swap cache, without PG_readahead, long before its bio: who"
    " finds it has no hit (mm/swap_state.c:swap_vma_readahead; 6.12)",
    "passed-by-in-a-block": "a thread that is to map a block of a file has its first page's lock for 4 ms: others map"
    " what is left, miss that page, and find it locked (mm/filemap.c:filemap_map_pages; 5.10)",
    "mapped-by-another-and-taken-away": "... and one that was preempted found what another vCPU had mapped, and faulted"
    " only when the page had been reclaimed (6.12)",
    "faults-behind-a-write-of-en": "accesses to one page before and behind a write of EN, of which only one behind it"
    " faults: a kworker has copied the page, and the vCPU was preempted (7.3)",
    "windows-of-three-threads": "... three vCPUs that choose theirs at once, and a hit between two of another's (mm/"
    "swap_state.c:swap_update_readahead; 7.3): what was read first tells, long before a vCPU parts from it",
    "windows-of-eight-threads": "... eight vCPUs in windows of clusters (mm/swap_state.c:swap_cluster_readahead; 6.12)",
    "cluster-windows-at-once": "... and 5.10, whose windows overlap (mm/swap_state.c:swap_cluster_readahead)",
    "added-long-before-its-bio": "... 9 ms before, in a second run of the program (5.10)",
    "window-in-front-of-anothers": "of a file, the pages of a window in front of what another thread has added are in"
    " the cache before the rest (mm/readahead.c:page_cache_ra_unbounded; 6.12)",
    "failed-before-it-was-there": "pages of a bio that fails as a whole, which others may find in the cache before it"
    " is submitted, fail too (mm/page_io.c:swap_read_end; 7.3)",
    "bio-begun-before-others": "two windows of swap at once, each thread reads the other's page: what it adds behind"
    " that is in the bio that it has begun, if it follows on the device (mm/page_io.c:swap_add_folio; 7.3)",
    "hole-added-with-others": "a hole between pages that another thread has added is in the cache before the one"
    " behind: who chose a window over it sets no PG_readahead there (mm/readahead.c:page_cache_ra_unbounded; 5.10)",
    "each-page-read-by-the-other": "two windows of a file at once: each thread submits the other's own page, one"
    " behind its call's end (mm/readahead.c:page_cache_ra_unbounded; 5.10)",
    "mapped-before-it-was-locked": "a private write finds a hole's page, and another thread maps it around its own"
    " before it is copied: finish_fault finds the PTE changed, and GUP calls again (mm/memory.c:do_cow_fault; 6.1)",
    "reclaim-twice-in-long-reads": "two vCPUs wait for one page themselves while reclaim unmaps another: neither maps"
    " it, and both fault on it again only when they have woken 65 sleepers (mmu.c:is_page_fault_stale; 7.3)",
    "mapped-around-a-write": "a shared write asks the file system, and a thread whose call began before maps the page"
    " around its own meanwhile: finish_fault finds the PTE changed, and GUP calls again (do_shared_fault; 6.1)",
    "slept-for-the-cache": "four vCPUs map a page at once, one of which has read it and another has slept a tick while"
    " it was added (mm/swap_state.c:__read_swap_cache_async; 6.1): what their calls returned tells who found it locked",
    "held-up-twice-in-a-window": "a thread adds six pages of its window, and two behind four of another's; its own page"
    " is brought by a third (mm/readahead.c:page_cache_ra_unbounded; 6.12)",
}


@pytest.mark.parametrize("name", SETTLED)
def test_a_sound_kernel_agrees(name: str) -> None:
    files = packed_capture(f"explored-{name}")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason


def test_reads_that_no_run_of_the_model_lets_go_say_nothing() -> None:
    """debian-6.1: vCPU threads read for themselves, and nobody ever sleeps in the halt that the reads wait for; they
    end after 20 s.  Where some of the faults are asynchronous (noio) the halt comes."""
    files = packed_capture("explored-reads-that-wait-for-good")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS and FORESEEN in verdict.reason, verdict.reason
    evidence, kernel = decode(files), model_of(files, "nowait")
    assert foreseen(evidence, kernel) and not foreseen(evidence, model_named("noio-6.1"))


def test_nor_do_those_of_a_run_in_which_another_vcpu_came_first() -> None:
    """debian-6.1: of twelve vCPUs the first has the one window of two pages, and which is first nothing decides."""
    files = packed_capture("explored-waits-for-good-with-another-first")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS and FORESEEN in verdict.reason, verdict.reason
