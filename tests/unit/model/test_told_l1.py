# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is told of a token of an L2, by the source: arch/x86/kvm/x86.c, svm/nested.c."""

from __future__ import annotations

import pytest

from harness.contract.host_program import Between, TokenCase, Told
from harness.errors import ModelError
from harness.model.kernels import find_kernel
from harness.model.known_faults import with_fixes
from harness.model.told_l1 import predict_token

OWN = TokenCase(Between.EXIT, intercept=False)
GIVEN = TokenCase(Between.INJECT, intercept=False)
EACH = [
    TokenCase(between, intercept)
    for between in Between
    for intercept in (False, True)
    if between not in (Between.EXIT, Between.INJECT, Between.ACKED, Between.SHADOW, Between.UNMAPPED, Between.NMI)
]
MENDED = {"nowait-5.10": ("F4",), "nowait-6.1": ("F2", "F3"), "nowait-6.12": ("F3",), "nowait-7.3": ("F3",)}


@pytest.mark.parametrize("case", EACH, ids=str)
@pytest.mark.parametrize("kernel", MENDED)
def test_with_the_fixes_l1_is_told_whatever_it_intercepts(kernel: str, case: TokenCase) -> None:
    found = predict_token(with_fixes(find_kernel(kernel), MENDED[kernel]), case)
    assert (found.outcome, found.faults) == (Told.L1, ())


@pytest.mark.parametrize("case", EACH, ids=str)
def test_without(case: TokenCase) -> None:
    oldest = predict_token(find_kernel("nowait-5.10"), case)
    assert oldest.faults == (() if case.intercept else ("F4",))
    stable = predict_token(find_kernel("nowait-6.1"), case)
    if case.between in (Between.STATE, Between.OWN_FAULT):  # which asks for KVM_REQ_EVENT
        assert stable.faults == (() if case.intercept else ("F3",))
    else:
        assert (stable.outcome, stable.faults) == (Told.LEFT, ("F2",))
    for newer in ("nowait-6.12", "nowait-7.3"):
        lost = case.between in (Between.STATE, Between.OWN_FAULT) and not case.intercept
        assert predict_token(find_kernel(newer), case).faults == (("F3",) if lost else ())


@pytest.mark.parametrize("kernel", MENDED)
def test_of_a_page_of_its_own_l1_is_told_behind_any_exit(kernel: str) -> None:
    found = predict_token(find_kernel(kernel), OWN)
    assert (found.outcome, found.faults) == (Told.L1, ())


@pytest.mark.parametrize("kernel", MENDED)
@pytest.mark.parametrize("between", [Between.ACKED, Between.NMI])
@pytest.mark.parametrize("intercept", [False, True])
def test_l1_is_told_of_a_wake_all_when_its_l2_acknowledges_and_before_an_nmi(
    kernel: str, intercept: bool, between: Between
) -> None:
    found = predict_token(find_kernel(kernel), TokenCase(between, intercept))
    assert (found.outcome, found.faults) == (Told.L1, ())


@pytest.mark.parametrize("kernel", MENDED)
@pytest.mark.parametrize("between", [Between.SHADOW, Between.UNMAPPED])
def test_a_halt_of_l2_is_l1s_no_affair(kernel: str, between: Between) -> None:
    found = predict_token(find_kernel(kernel), TokenCase(between, intercept=False))
    assert (found.outcome, found.faults) == (Told.HALT, ())


@pytest.mark.parametrize("kernel", MENDED)
def test_what_l1_gives_its_l2_is_not_taken_away_by_an_interrupt(kernel: str) -> None:
    found = predict_token(find_kernel(kernel), GIVEN)
    assert (found.outcome, found.faults) == (Told.TO_L2, ())


def test_without_asynchronous_page_faults_there_is_no_token() -> None:
    with pytest.raises(ModelError):
        predict_token(find_kernel("sync-6.1"), EACH[0])
