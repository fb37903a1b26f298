# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers as ranges."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.report.ranges import ranges


def test_examples() -> None:
    assert ranges([5, 0, 1, 2, 2]) == "0-2, 5"
    assert ranges([3], ",") == "3"
    assert ranges([]) == ""


@given(st.sets(st.integers(0, 60)))
def test_the_ranges_say_exactly_the_numbers(numbers: set[int]) -> None:
    said: list[int] = []
    for part in filter(None, ranges(numbers).split(", ")):
        low, _, high = part.partition("-")
        said += range(int(low), int(high or low) + 1)
    assert said == sorted(numbers)
