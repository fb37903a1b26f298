# SPDX-License-Identifier: GPL-2.0-or-later
"""A fault whose own GUP replaces a present PTE is stale: RET_PF_RETRY, and one more fault that GUP-fast resolves.

mm/memory.c:wp_page_copy calls the mmu notifier between arch/x86/kvm/mmu/mmu.c:direct_page_fault's reading of mmu_seq
and its test of it.  Found on Debian's 6.1.192 with writes to pages whose zero page was mapped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.model.kernels import find_kernel
from harness.model.outcomes import Outcome
from harness.model.pages import SwapSlot
from harness.model.readahead import ReadaheadState
from harness.model.walk.access import walk_access
from harness.model.walk.gup import fault_walk
from harness.model.walk.page_states import page_in_state
from harness.model.walk.steps import End, VcpuView

FUNCTION = {
    "nowait-5.10": "mmu_notifier_retry", "nowait-6.1": "is_page_fault_stale",
    "nowait-6.12": "mmu_invalidate_retry_gfn_unsafe", "noio-6.1": "is_page_fault_stale",
    "sync-6.1": "is_page_fault_stale", "noio-v7": "tdp_page_fault", "sync-2010": "tdp_page_fault",
}  # fmt: skip
COPIED: list[tuple[str, str, dict[str, Any]]] = [
    ("anon", "zero-page", {}),
    ("anon", "ksm", {}),
    ("file-private", "read-only", {}),
    ("anon", "swapcache", {"swap_count": 2}),  # do_swap_page maps it read-only, then do_wp_page copies
]
KEPT: list[tuple[str, str]] = [
    ("anon", "untouched"),  # nothing was mapped
    ("anon", "read-only"),  # wp_page_reuse
    ("file-shared", "read-only"),  # page_mkwrite, wp_page_reuse
    ("file-private", "cached"),  # do_cow_fault: the PTE was empty
    ("anon", "swapcache"),
]


@pytest.mark.parametrize("kernel", FUNCTION)
@pytest.mark.parametrize(("backing", "state", "options"), COPIED)
def test_a_write_that_copies_a_present_page_faults_twice(
    kernel: str, backing: str, state: str, options: dict[str, Any]
) -> None:
    page = page_in_state(backing, state, **options)
    walk = walk_access(find_kernel(kernel), page, write=True)
    assert walk.outcome is Outcome.MINOR
    assert [a.end.end for a in walk.phases] == [End.STALE, End.MAPPED]
    assert walk.phases[1].end.outcome is Outcome.FAST and walk.phases[1].end.writable
    assert any(s.function.startswith(FUNCTION[kernel]) for s in walk.fault.steps)
    assert sum(a.counters.min for a in walk.phases) == 1, "min_flt moves for the copy, not for the second fault"


@pytest.mark.parametrize("kernel", FUNCTION)
@pytest.mark.parametrize(("backing", "state"), KEPT)
def test_a_write_that_replaces_nothing_is_mapped_at_once(kernel: str, backing: str, state: str) -> None:
    walk = walk_access(find_kernel(kernel), page_in_state(backing, state), write=True)
    assert [a.end.end for a in walk.phases] == [End.MAPPED]


@pytest.mark.parametrize("kernel", ["nowait-5.10", "nowait-6.1", "nowait-6.12"])
def test_a_read_of_the_zero_page_is_not_stale(kernel: str) -> None:
    walk = fault_walk(find_kernel(kernel), write=False, vcpu=VcpuView())
    leg = walk.run(page_in_state("anon", "zero-page"), ReadaheadState())
    assert leg.end is End.MAPPED and not leg.invalidated and not leg.writable


def test_5_10_copies_a_page_that_is_still_in_the_swap_cache() -> None:
    """do_wp_page of 5.10 wants page_count 1, and the swap cache holds one reference; later kernels free the slot."""
    page = replace(page_in_state("anon", "read-only"), swap=SwapSlot())
    for name, ends in (("nowait-5.10", [End.STALE, End.MAPPED]), ("nowait-6.1", [End.MAPPED])):
        walk = walk_access(find_kernel(name), page, write=True)
        assert [a.end.end for a in walk.phases] == ends, name
