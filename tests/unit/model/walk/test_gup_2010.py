# SPDX-License-Identifier: GPL-2.0-or-later
"""What the seed's page names in the chain of 2.6.3x appears in the walks."""

from __future__ import annotations

import pytest

from harness.model.kernels import find_kernel
from harness.model.outcomes import Outcome
from harness.model.walk.access import AccessWalk
from harness.model.walk.page_states import page_in_state
from harness.model.walk.steps import Environment
from harness.model.walk.walk_diff import Question


def walk(backing: str, state: str, kernel: str = "noio-v7", **around: object) -> AccessWalk:
    question = Question(page_in_state(backing, state), env=Environment(**around))  # type: ignore[arg-type]
    return question.ask(find_kernel(kernel))


def text(walked: AccessWalk) -> str:
    return "\n".join(f"{s.function}: {s.tested}: {s.result}; {s.why}" for p in walked.phases for s in p.steps)


@pytest.mark.parametrize(
    ("backing", "state", "kernel", "names"),
    [
        ("anon", "swapped", "noio-v7", ("mmu_seq", "BUG_ON(atomic && async): no", "FOLL_FORCE", "grab_swap_token",
                                         "delayacct_set_flag", "return_fault_page", "get_page(fault_page)")),
        ("anon", "swapped", "sync-2010", ("mmu_seq", "FOLL_FORCE", "grab_swap_token", "delayacct_set_flag")),
        ("anon", "untouched", "noio-v7", ("pte_mkspecial",)),
        ("pfnmap", "untouched", "noio-v7", ("BUG_ON(!kvm_is_mmio_pfn(pfn)): no",)),
    ],
)  # fmt: skip
def test_functions_of_the_page(backing: str, state: str, kernel: str, names: tuple[str, ...]) -> None:
    told = text(walk(backing, state, kernel))
    assert [name for name in names if name not in told] == []


def test_without_read_ahead_the_page_is_read_by_no_cached_page() -> None:
    assert "no_cached_page" in text(walk("file-shared", "dropped", "sync-2010", ra_pages=0))
    assert "no_cached_page" not in text(walk("file-shared", "dropped", "sync-2010"))


def test_the_refusal_comes_before_the_swap_token() -> None:
    walked = walk("anon", "swapped")
    assert walked.outcome is Outcome.TOKEN
    assert "grab_swap_token: contend" not in "\n".join(f"{s.tested}: {s.result}" for s in walked.fault.steps)


@pytest.mark.parametrize(
    ("kernel", "function"), [("sync-2010", "__get_user_pages"), ("nowait-6.1", "mm_account_fault")]
)
@pytest.mark.parametrize(("state", "answer"), [("swapped", "yes: "), ("untouched", "no: ")])
def test_whether_the_fault_was_major_is_said(kernel: str, function: str, state: str, answer: str) -> None:
    steps = [s for phase in walk("anon", state, kernel).phases for s in phase.steps if s.function == function]
    told = [s.result for s in steps if s.tested.startswith("VM_FAULT_MAJOR")]
    assert told and all(result.startswith(answer) for result in told)
