# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made of the evidence once is what each prediction would have made of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.errors import CaptureDamaged
from harness.evidence.decode import decode
from harness.judge.protocol_check import check
from harness.judge.rules_context import Expected
from harness.judge.seen_once import SeenOnce
from harness.judge.seen_totals import seen_totals
from harness.model.events import Kind
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count
from tests.unit.judge.golden import load

KERNEL = find_kernel("nowait-6.1")
E = decode(load("S23"))


def test_the_rules_are_checked_once_for_each_thing_that_they_are_told() -> None:
    seen = SeenOnce(E, KERNEL)
    for expected in (Expected(), Expected(Count.exactly(1000)), Expected(known=("F1",))):
        checked, totals = seen.checked(expected)
        assert checked == check(E, KERNEL, expected)
        assert totals == seen_totals(E, checked.counts, KERNEL)
        assert seen.checked(replace(expected))[0] is checked
    assert seen.checked(Expected(Count.exactly(1000)))[0].findings != seen.checked(Expected())[0].findings


def test_the_items_are_aligned_once_and_lack_no_event_but_those_of_episodes() -> None:
    seen = SeenOnce(E, KERNEL)
    view = seen.view()
    assert seen.view() is view
    assert {event.kind for event in E.events} - {event.kind for event in view.events} == {
        Kind.ENTRY, Kind.EXIT, Kind.OUT, Kind.IN,
    }  # fmt: skip
    inside = {event.kind for item in view.alignment.items for episode in item.episodes for event in episode.events}
    assert {Kind.OUT, Kind.IN} <= inside


def test_without_the_guests_log_there_is_no_view() -> None:
    with pytest.raises(CaptureDamaged, match="guest log"):
        SeenOnce(replace(E, guest=None), KERNEL).view()
