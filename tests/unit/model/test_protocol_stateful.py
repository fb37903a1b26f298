# SPDX-License-Identifier: GPL-2.0-or-later
"""The automaton beside its naive reference, step by step: after each step both must know the same."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from harness.model.kernels import find_kernel
from harness.model.protocol.checker import Checker
from tests.unit.model.protocol_notation import feed_all
from tests.unit.model.reference_kvm import ReferenceKvm

VCPU = st.integers(0, 1)
PAGE = st.integers(0, 7)


class CheckerBesideReference(RuleBasedStateMachine):
    """Each step of the reference emits events; the checker must accept them and arrive at the reference's state."""

    def __init__(self) -> None:
        super().__init__()
        self.reference = ReferenceKvm()
        self.checker = Checker(find_kernel("nowait-6.1"), 2, int_vec=0, first_id=1, context=self.reference.context())
        self.fed = 0

    def step(self, action: str, vcpu: int, argument: int = 0) -> None:
        getattr(self.reference, action)(self.reference.vcpus[vcpu], argument)

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

    @precondition(lambda self: len(self.reference.vcpus[0].queue) > 3)
    @rule()
    def drain(self) -> None:
        self.reference.drain()

    @invariant()
    def no_violation(self) -> None:
        found = list(feed_all(self.checker, self.reference.trace[self.fed :]))
        self.fed = len(self.reference.trace)
        assert [v for v in found if v.rule != "D40"] == []

    @invariant()
    def same_state(self) -> None:
        """What the checker deduced from events alone is what the reference holds in its lists."""
        self.no_violation()
        for reference, deduced in zip(self.reference.vcpus, self.checker._vcpus, strict=False):
            works = {work["token"]: work["gpa"] for work in reference.queue if work["gpa"] is not None}
            assert {token: work.gpa for token, work in deduced.live.items()} == works
            wake_alls = sum(work["gpa"] is None for work in reference.queue)
            assert deduced.wake_all in ((0, 1) if not wake_alls else (1, 2))
            assert (deduced.last_id, deduced.int_vec) == (reference.ident, reference.int_vec)
            assert bool(deduced.enabled) == (reference.en & 9 == 9)


TestCheckerBesideReference = CheckerBesideReference.TestCase
TestCheckerBesideReference.settings = settings(
    max_examples=40, stateful_step_count=60, derandomize=True, suppress_health_check=list(HealthCheck)
)
