# SPDX-License-Identifier: GPL-2.0-or-later
"""When a vCPU made an access of which no event tells."""

from __future__ import annotations

from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest

from harness.model.delivery import ApfState
from harness.model.events import Kind
from harness.model.kernels import find_kernel
from harness.model.simulation.accesses import clears_late
from harness.model.simulation.choices import Choices
from harness.model.simulation.engine import Wait
from harness.model.simulation.recorded import Recorded, RecordedEvent, WorkRun
from harness.model.simulation.replay import Replay

WORKS = {(0, 1): WorkRun(40, completed_ns=150), (0, 2): WorkRun(40, completed_ns=500), (1, 1): WorkRun(40, (), 160)}


def _cleared_at(answer: int, *, token: int = 0xFFFFFFFF, works: dict[tuple[int, int], WorkRun]) -> int:
    """When the guest clears its token word, from 100 on, whose next event is a write of EN at 200."""
    following = RecordedEvent(Kind.WRMSR, 0x4B564D02, 200, 205)
    recorded = Recorded(
        marks=((following,),), threads=(10,), works=works, read_ends={}, changes={}, busy=((),),
        unmaps=(), ticks=((),), host=(), log=((),), end_ns=1000,
    )  # fmt: skip
    state, engine = ApfState(find_kernel("nowait-6.12"), token=token), SimpleNamespace(now=100)
    choices = Choices({("when vCPU 0 cleared its token word", 0): answer} if answer else {})
    kvm: Any = SimpleNamespace(
        index=0, state=state, world=SimpleNamespace(replay=Replay(recorded, choices), engine=engine)
    )

    def loop_until(until_ns: int) -> Generator[Wait, None, bool]:
        yield Wait(until_ns=until_ns)
        return True

    for wait in clears_late(kvm, loop_until):
        engine.now = wait.until_ns
    return engine.now


@pytest.mark.parametrize(
    ("answer", "works", "at"),
    [
        (0, WORKS, 100),
        (1, WORKS, 151),  # a situation of the fifteenth round (Y37) on 6.12: KVM has looked at the word by then
        (0, {}, 100),
    ],
)
def test_a_word_is_cleared_before_or_behind_a_work_of_its_own_vcpu(
    answer: int, works: dict[tuple[int, int], WorkRun], at: int
) -> None:
    assert _cleared_at(answer, works=works) == at


def test_an_empty_word_asks_nothing() -> None:
    assert _cleared_at(1, token=0, works=WORKS) == 100
