# SPDX-License-Identifier: GPL-2.0-or-later
"""What ends an artificial halt, by the source: arch/x86/kvm/x86.c."""

from __future__ import annotations

import pytest

from harness.contract.host_program import HaltCase, HaltCause, RunsAgain, StateChange
from harness.errors import ModelError
from harness.model.halted_vcpu import predict_halt
from harness.model.kernels import find_kernel
from harness.model.known_faults import with_fixes

KERNELS = ("nowait-5.10", "nowait-6.1", "nowait-6.12", "nowait-7.3", "noio-6.1")
EACH = [HaltCase(cause, change) for cause in HaltCause for change in StateChange]
WITHOUT_KICKS = ["F9", "F10"]
"""Fixes without which a kick has its own outcome, see below."""
WITH_THE_PAGE = (
    StateChange.MPSTATE,
    StateChange.STOP_CONT,
    StateChange.KICKED,
    StateChange.KICK,
    StateChange.READ_ONLY,
)
"""Changes that drop no work and make no event: the ready event is still to come."""


def dropped(case: HaltCase) -> bool:
    """The ready event is dropped, and nothing takes its place: no INIT, no wake-all of enabling."""
    if case.change is StateChange.LOADVM:
        return case.cause is HaltCause.OFF
    return case.change in (StateChange.RESET, StateChange.EN0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", EACH, ids=str)
def test_it_never_runs_again_just_where_the_ready_event_is_dropped(case: HaltCase, kernel: str) -> None:
    found = predict_halt(with_fixes(find_kernel(kernel), WITHOUT_KICKS), case)
    if dropped(case):
        assert (found.outcome, found.faults) == (RunsAgain.NEVER, ("F1",))
    else:
        assert found.outcome is (RunsAgain.WITH_PAGE if case.change in WITH_THE_PAGE else RunsAgain.AT_ONCE)
        assert found.faults == ()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", EACH, ids=str)
def test_with_the_fix_it_runs_always_and_no_sooner_than_before_elsewhere(case: HaltCase, kernel: str) -> None:
    before = predict_halt(with_fixes(find_kernel(kernel), WITHOUT_KICKS), case)
    found = predict_halt(with_fixes(find_kernel(kernel), ["F1", *WITHOUT_KICKS]), case)
    assert found.outcome is (RunsAgain.AT_ONCE if dropped(case) else before.outcome) and found.faults == ()


@pytest.mark.parametrize("cause", HaltCause)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_ready_event_takes_a_kick_away_from_6_15_on(kernel: str, cause: HaltCause) -> None:
    """A guest that has not enabled is told of nothing."""
    found = predict_halt(find_kernel(kernel), HaltCase(cause, StateChange.KICK_TOLD))
    if kernel == "nowait-7.3" and cause is not HaltCause.OFF:
        assert (found.outcome, found.faults) == (RunsAgain.NEVER, ("F9",))
    else:
        assert (found.outcome, found.faults) == (RunsAgain.AT_ONCE, ())


@pytest.mark.parametrize("cause", HaltCause)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kick_in_the_halt_lets_none_last(kernel: str, cause: HaltCause) -> None:
    found = predict_halt(find_kernel(kernel), HaltCase(cause, StateChange.KICK))
    assert (found.outcome, found.faults) == (RunsAgain.AGAIN, ("F10",))


def test_without_asynchronous_page_faults_there_is_no_halt() -> None:
    with pytest.raises(ModelError):
        predict_halt(find_kernel("sync-6.1"), EACH[0])
