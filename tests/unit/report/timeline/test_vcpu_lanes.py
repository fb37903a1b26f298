# SPDX-License-Identifier: GPL-2.0-or-later
"""What a vCPU did when, from events that were written by hand."""

from __future__ import annotations

import pytest

from harness.model.events import Event, Kind
from harness.report.timeline.drawing import Look
from harness.report.timeline.vcpu_lanes import vcpu_lanes


def looks(*told: tuple[int, Kind, int]) -> list[tuple[int, int, Look]]:
    (lane,) = vcpu_lanes([Event(kind, 0, t, value=value) for t, kind, value in told], 1, 100)
    return [(s.start_ns, s.end_ns, s.look) for s in lane.spans]


def test_a_token_and_the_guests_own_halt() -> None:
    assert looks(
        (0, Kind.ENTRY, 0), (10, Kind.EXIT, 0), (10, Kind.PF, 0), (12, Kind.NP, 0), (13, Kind.INJ, 0),
        (20, Kind.ENTRY, 0), (30, Kind.EXIT, 0), (40, Kind.OUT, ord("S")), (90, Kind.IN, 0),
    ) == [
        (0, 10, Look.GUEST), (10, 20, Look.KVM), (20, 30, Look.GUEST), (30, 40, Look.KVM), (40, 90, Look.IDLE),
        (90, 100, Look.KVM),
    ]  # fmt: skip


@pytest.mark.parametrize("answer", [(Kind.NP,), (Kind.REP,)])
def test_a_fault_without_a_token_halts(answer: tuple[Kind]) -> None:
    seen = looks((0, Kind.EXIT, 0), (1, Kind.PF, 0), (2, answer[0], 0), (5, Kind.OUT, ord("S")), (50, Kind.IN, 0),
                 (60, Kind.OUT, ord("S")), (70, Kind.IN, 0), (80, Kind.ENTRY, 0))  # fmt: skip
    assert [(a, b) for a, b, look in seen if look is Look.HALTED] == [(5, 50), (60, 70)]  # halted until it is entered


@pytest.mark.parametrize(("state", "look"), [("D", Look.BLOCKED), ("R", Look.RUNNABLE), ("S", Look.IDLE)])
def test_how_a_thread_left_its_processor(state: str, look: Look) -> None:
    assert (5, 50, look) in looks((0, Kind.EXIT, 0), (5, Kind.OUT, ord(state)), (50, Kind.IN, 0))


def test_an_interrupt_from_elsewhere_is_not_the_threads_own_doing() -> None:
    assert looks((0, Kind.ENTRY, 0), (5, Kind.ACC, 243)) == [(0, 100, Look.GUEST)]
