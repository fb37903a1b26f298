# SPDX-License-Identifier: GPL-2.0-or-later
"""The automaton beside its naive twin, step by step: after each step both must know the same."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from harness.model.kernels import find_kernel
from harness.model.protocol.checker import Checker
from tests.unit.model.protocol_twin import Twin

VCPU = st.integers(0, 1)
PAGE = st.integers(0, 7)


class CheckerBesideTwin(RuleBasedStateMachine):
    """Each step of the twin emits events; the checker must accept them and arrive at the twin's state."""

    def __init__(self) -> None:
        super().__init__()
        self.twin = Twin()
        self.checker = Checker(find_kernel("nowait-6.1"), 2, int_vec=0, first_id=1, context=self.twin.context())
        self.fed = 0

    def step(self, action: str, vcpu: int, argument: int = 0) -> None:
        getattr(self.twin, action)(self.twin.vcpus[vcpu], argument)

    @rule(vcpu=VCPU, page=PAGE)
    def touch(self, vcpu: int, page: int) -> None:
        self.step("touch", vcpu, page)

    @rule(vcpu=VCPU, number=st.integers(0, 100))
    def complete(self, vcpu: int, number: int) -> None:
        self.step("complete", vcpu, number)

    @rule(number=st.integers(0, 100))
    def late_done(self, number: int) -> None:
        self.step("late_done", 0, number)

    @rule(vcpu=VCPU, action=st.sampled_from(["kick", "wake", "interrupt", "user_exit", "noise", "zero", "ack"]))
    def run(self, vcpu: int, action: str) -> None:
        self.step(action, vcpu)

    @rule(vcpu=VCPU)
    def enable(self, vcpu: int) -> None:
        self.step("enable", vcpu)

    @rule(vcpu=VCPU, running=st.integers(0, 255), action=st.sampled_from(["disable", "reset"]))
    def clear(self, vcpu: int, running: int, action: str) -> None:
        self.step(action, vcpu, running)

    @rule(page=PAGE)
    def reclaim(self, page: int) -> None:
        self.step("reclaim", 0, page)

    @precondition(lambda self: len(self.twin.vcpus[0].queue) > 3)
    @rule()
    def drain(self) -> None:
        self.twin.drain()

    @invariant()
    def no_violation(self) -> None:
        found = list(self.checker.feed_all(self.twin.trace[self.fed :]))
        self.fed = len(self.twin.trace)
        assert [v for v in found if v.rule != "D40"] == []

    @invariant()
    def same_state(self) -> None:
        """What the checker deduced from events alone is what the twin holds in its lists."""
        self.no_violation()
        for twin, deduced in zip(self.twin.vcpus, self.checker._vcpus, strict=False):
            works = {work["token"]: work["gpa"] for work in twin.queue if work["gpa"] is not None}
            assert {token: work.gpa for token, work in deduced.live.items()} == works
            wake_alls = sum(work["gpa"] is None for work in twin.queue)
            assert deduced.wake in ((0, 1) if not wake_alls else (1, 2))
            assert (deduced.last_id, deduced.int_vec) == (twin.ident, twin.int_vec)
            assert bool(deduced.enabled) == (twin.en & 9 == 9)


TestCheckerBesideTwin = CheckerBesideTwin.TestCase
TestCheckerBesideTwin.settings = settings(
    max_examples=40, stateful_step_count=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
