# SPDX-License-Identifier: GPL-2.0-or-later
"""For each field of the kernel model a scenario that comes out otherwise when the field is flipped.

A field that no plan can show is listed with the reason; then the walk of an access must show it, or the judge reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import product

import pytest

from harness.errors import ModelError
from harness.model.kernels import KernelModel, kernel_for
from harness.model.protocol.rules import RULES
from harness.model.walk.access import AccessWalk
from harness.model.walk.page_states import BACKING_NAMES, STATES, page_in_state
from harness.model.walk.steps import Environment
from harness.model.walk.walk_diff import Question, VcpuState
from harness.report.explain_text import as_json
from harness.run.model_effects import _answer
from tests.house.test_kernel_model import read
from tests.unit.scenarios import plan_of

SHOWN = {
    "token_with_paging_off": ("S66", "7.3.4"),
    "lapic_disabled_defers": ("S11", "7.3.4"),
    "tdp_mmu": ("S170", "7.3.4"),
    "prefetches_last_run": ("S171", "7.3.4"),
    "halt_polls": ("S29", "7.3.4"),
    "token_never_zero": ("S101", "7.3.4"),
    "dirtying_retries": ("S252", "5.10.262"),
    "wp_counts_references": ("S104", "5.10.262"),
    "bdev_rw_page": ("S31", "7.3.4"),
    "do_poll": ("S23", "7.3.4"),
    "swapin_read_writable": ("S104", "7.3.4"),
    "zero_map": ("S33", "7.3.4"),
    "cr0_pg_clears_queue": ("S84", "7.3.4"),
    "cr0_pg_set_requests_ready": ("S84R", "7.3.4"),
    "en_needs_shared_area": ("S10", "7.3.4"),
    "reset_keeps_halt": ("S109", "7.3.4"),
    "swap_reads_joined": ("S25", "7.3.4"),
    "locked_hit_keeps_miss": ("S155", "7.3.4"),
    "fault_around_one_hit": ("S155", "7.3.4"),
    "prefetch_keeps_entry": ("S230", "7.3.4"),
    "interruptible_gup": ("S231", "7.3.4"),
    "marker_is_expected": ("S441", "7.3.4"),
    "shmem_swapin_sync": ("S452", "7.3.4"),
    "pre_fault_memory": ("S463", "7.3.4"),
    "next_miss_tells_none": ("S212", "7.3.4"),
    "ext4_large_folios": ("S210", "7.3.4"),
    "read_around_single": ("S210", "7.3.4"),
    "fault_maps_folio": ("S210", "7.3.4"),
    "needs_pf_intercept": ("S131", "7.3.4"),
    "vmexit_needs_request": ("S131", "7.3.4"),
    "sync_loses_vmexit": ("S134", "7.3.4"),
    "init_keeps_l2_tables": ("S192", "7.3.4"),
    "running_checks_nested": ("S397", "7.3.4"),
    "window_is_l2s": ("S196", "7.3.4"),
    "masked_interrupt_spins": ("S196", "7.3.4"),
    "ready_clears_kick": ("S435/cmdline=cpl0 kick-told", "7.3.4"),
    "kick_ends_halts": ("S436", "7.3.4"),
}
"""Field -> (scenario, release of the kernel in which it is flipped)."""

WALK = {
    "hwpoison_after_lock": "no plan poisons a page",
    "sigpending_pfn": "a thread that is told to stop is told so where the wait is interruptible, which came later",
    "gup_hugetlb_apart": "no plan has hugetlb memory",
    "congested_single_page": "no device of a plan is congested",
    "large_folio_swapin": "large folios are off for anonymous memory unless a host asks for them",
    "sync_swapin_shared": "no plan gives a swap slot two references",
    "stale_before_lock": "no plan has an mmu notifier that runs between the look at mmu_seq and the stale test",
    "prefetch_keeps_error_code": "the worker leaves the page writable, so that the prefetch maps it so either way",
    "pgfault_counts_retry": "the kernel's PGFAULT is not one of the totals",
    "faultin_split": "names of functions",
    "foll_renumbered": "numbers of flags",
    "repeated_fault_event": "the name of an event",
}
"""Field -> why no plan shows it; `apf explain` does, step by step."""

JUDGE = {
    "memcg_events_batched": "judge/seen_totals.py",
    "pf_taken_statistic": "model/protocol/rules.py",
    "always_flush_work": "model/protocol/entry_rules.py",
    "swap_pte_exclusive": "judge/swap_slots.py",
}
"""Field -> what in the judgement of a run reads it: no prediction, but what of the evidence is held against it."""

IDENTITY = {"name", "variant", "release", "port", "v7_bugs", "era_2010", "shmem_minor_hook"}


def test_every_field_has_its_place() -> None:
    places = [*SHOWN, *WALK, *JUDGE]
    assert sorted(places) == sorted({f.name for f in fields(KernelModel)} - IDENTITY)


def flipped(kernel: KernelModel, name: str) -> KernelModel:
    """The same kernel with this one behaviour of the other kind; functions are called as in the newest."""
    value = getattr(kernel, name)
    return replace(kernel, **{name: not value if isinstance(value, bool) else f"{value}_other", "release": (7, 3, 4)})


@pytest.mark.parametrize("name", SHOWN)
def test_a_flipped_field_changes_the_prediction_of_its_scenario(name: str) -> None:
    scenario, release = SHOWN[name]
    kernel = kernel_for("nowait", release)
    assert _answer(plan_of(scenario), kernel) != _answer(plan_of(scenario), flipped(kernel, name))


def questions() -> Iterator[Question]:
    """Accesses to pages in every state that there is, on devices and vCPUs that differ in what the walk looks at."""
    for (name, state), write in product(STATES.items(), (False, True)):
        for backing, kind in BACKING_NAMES.items():
            if kind not in state.backings:
                continue
            for more in ({}, {"synchronous": True}, {"synchronous": True, "swap_count": 2}):
                try:
                    page = page_in_state(backing, name, **more)  # type: ignore[arg-type]
                except ModelError:
                    continue
                yield Question(page, write, VcpuState(), Environment())
                yield Question(page, write, VcpuState(live=True), Environment())
                yield Question(page, write, VcpuState(), Environment(signal_pending=True))
                if page.folio is not None:
                    poisoned = replace(page, folio=replace(page.folio, hwpoison=True))
                    yield Question(poisoned, write, VcpuState(), Environment())
                yield Question(
                    page, write, VcpuState(interrupts=False), Environment(vma_readahead=False, congested=True)
                )


def differs(question: Question, kernel: KernelModel, other: KernelModel) -> bool:
    """Whether what `apf explain` tells of the two is not the same; of one and the same walk it tells the same."""

    def walked(by: KernelModel) -> AccessWalk | str:
        try:
            return question.ask(by)
        except ModelError as error:
            return error.message

    def told(by: KernelModel, walk: AccessWalk | str) -> object:
        return walk if isinstance(walk, str) else as_json(by, walk) | {"kernel": ""}

    one, another = walked(kernel), walked(other)
    return one != another and told(kernel, one) != told(other, another)


@pytest.mark.parametrize("name", WALK)
def test_what_no_plan_shows_is_shown_by_the_walk_of_some_access(name: str) -> None:
    kernel = replace(kernel_for("nowait", "6.1.192"), release=(7, 3, 4))
    other = flipped(kernel, name)
    assert any(differs(question, kernel, other) for question in questions())


@pytest.mark.parametrize("name", JUDGE)
def test_what_only_the_judge_reads_is_read_there(name: str) -> None:
    needed = {rule.needs for rule in RULES.values()} if JUDGE[name].endswith("rules.py") else set()
    assert name in read()[JUDGE[name]] or name in needed
