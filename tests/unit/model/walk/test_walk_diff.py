# SPDX-License-Identifier: GPL-2.0-or-later
"""Explanations: section B.5 through to the outcome, the deciding steps, and where kernels part (section F)."""

from __future__ import annotations

import pytest

from harness.model.kernels import KERNEL_NAMES, find_kernel
from harness.model.outcomes import Outcome
from harness.model.walk.page_states import STATES, page_in_state
from harness.model.walk.walk_diff import Question, VcpuState, compare, decided_by

SWAPPED = page_in_state("anon", "swapped")

B5 = [
    (VcpuState(cpl=3), Outcome.TOKEN),
    (VcpuState(cpl=0), Outcome.HALT),
    (VcpuState(cpl=0, send_always=True), Outcome.TOKEN),
    (VcpuState(interrupts=False), Outcome.SYNC),
    (VcpuState(shadow=True), Outcome.SYNC),
    (VcpuState(apf_enabled=False), Outcome.HALT),
    (VcpuState(cpl=0, apf_enabled=False), Outcome.HALT),
    (VcpuState(hlt_exits=False, cpl=0), Outcome.SYNC),
    (VcpuState(hlt_exits=False, cpl=3), Outcome.TOKEN),
    (VcpuState(lapic_in_kernel=False), Outcome.SYNC),
    (VcpuState(event_injected=True), Outcome.SYNC),
    (VcpuState(live=True), Outcome.REPEATED),
    (VcpuState(queue_full=True), Outcome.SYNC),
]


@pytest.mark.parametrize("kernel", ["nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1"])
@pytest.mark.parametrize(("vcpu", "outcome"), B5)
def test_b5(vcpu: VcpuState, outcome: Outcome, kernel: str) -> None:
    assert Question(SWAPPED, vcpu=vcpu).ask(find_kernel(kernel)).outcome is outcome


def test_b5_paging_off() -> None:
    question = Question(SWAPPED, vcpu=VcpuState(cpl=0, send_always=True, paging=False))
    assert question.ask(find_kernel("nowait-6.1")).outcome is Outcome.HALT
    assert question.ask(find_kernel("nowait-5.10")).outcome is Outcome.TOKEN


@pytest.mark.parametrize(
    ("vcpu", "why"),
    [
        (VcpuState(interrupts=False), "IF=0"),
        (VcpuState(cpl=0), "CPL 0 and no SEND_ALWAYS"),
        (VcpuState(apf_enabled=False), "EN has not both bit 0 and bit 3"),
        (VcpuState(paging=False), "CR0.PG=0"),
    ],
)
def test_the_reason_is_in_the_deciding_step(vcpu: VcpuState, why: str) -> None:
    steps = decided_by(Question(SWAPPED, vcpu=vcpu).ask(find_kernel("nowait-6.1")))
    assert any(why in step.result for step in steps)


@pytest.mark.parametrize(
    ("kernel", "state", "functions"),
    [
        ("nowait-6.1", "swapped", ["folio_lock_or_retry", "kvm_arch_async_page_not_present"]),
        ("noio-6.1", "swapped", ["do_swap_page", "kvm_arch_async_page_not_present"]),
        ("noio-v7", "swapped", ["do_swap_page", "try_async_pf"]),
        ("noio-v7", "swapcache-locked", ["do_swap_page"]),
        ("sync-2010", "swapped", ["do_swap_page"]),
        ("nowait-6.1", "populated", ["get_user_page_fast_only"]),
        ("nowait-6.1", "untouched", ["do_anonymous_page"]),
        ("nowait-6.1", "hwpoison", ["do_swap_page"]),
    ],
)
def test_deciding_functions(kernel: str, state: str, functions: list[str]) -> None:
    told = Question(page_in_state("anon", state)).ask(find_kernel(kernel))
    assert [s.function for s in decided_by(told)] == functions


def test_every_step_cites_a_file_and_a_release() -> None:
    for name in KERNEL_NAMES:
        kernel = find_kernel(name)
        for phase in Question(SWAPPED).ask(kernel).phases:
            for step in phase.steps:
                file, _, rest = step.citation.partition(":")
                assert file.endswith((".c", ".h")) and rest.startswith(step.function)
                assert f"({kernel.version})" in rest
                assert step.tested and step.result and step.calls[-1][1] == step.function


def effects(a: str, b: str, state: str, backing: str = "anon") -> dict[str, tuple[str, str]]:
    question = Question(page_in_state(backing, state))
    diff = compare(question.ask(find_kernel(a)), question.ask(find_kernel(b)))
    return {name: (x, y) for name, x, y in diff.effects}


def test_x1_submitter() -> None:
    found = effects("noio-6.1", "nowait-6.1", "swapped")
    assert found["reads submitted by V"] == ("none", "8 page(s)")
    assert found["reads submitted by the worker"] == ("8 page(s)", "none")
    assert "outcome" not in found


def test_x6_memfd_x8_neighbour_x12_mmap_lock() -> None:
    assert effects("noio-6.1", "nowait-6.1", "swapped", "memfd")["outcome"] == ("token", "sync")
    found = effects("noio-6.1", "nowait-6.1", "swapcache-locked")
    assert found["outcome"] == ("block", "token")
    assert found["V waits"][0] == "others-read in folio_lock_or_retry (D, mmap_lock held)"
    assert "dropped" in effects("noio-6.1", "noio-6.1-p1", "swapcache-locked")["V waits"][1]


@pytest.mark.parametrize("state", [n for n, s in STATES.items() if "anon" in s.backings])
def test_a_kernel_does_not_part_from_itself(state: str) -> None:
    told = Question(page_in_state("anon", state)).ask(find_kernel("nowait-6.1"))
    diff = compare(told, told)
    assert (diff.difference, diff.ways, diff.effects) == (None, None, ())


def test_first_difference() -> None:
    question = Question(SWAPPED)
    diff = compare(question.ask(find_kernel("noio-6.1-p1")), question.ask(find_kernel("nowait-6.1")))
    assert diff.difference is not None
    one, two = diff.difference
    assert ("FOLL_MINOR" in one.tested + one.result) and ("FOLL_NOWAIT" in two.tested + two.result)
    assert diff.ways is not None
    assert [s.function if s else None for s in diff.ways] == ["do_swap_page", "swapin_readahead"]
