# SPDX-License-Identifier: GPL-2.0-or-later
"""The gate is told things in another order than that in which they happened."""

from __future__ import annotations

import pytest

from harness.agent.gate import in_order
from harness.agent.gate.in_order import InOrder
from harness.contract.gate import Rule, Seen
from harness.contract.words import Release


def test_what_comes_late_is_put_where_it_belongs() -> None:
    words = InOrder()
    words.tell(1.0, Seen.announced, 0, 7)
    words.tell(2.0, Seen.enabled, 0)
    words.tell(3.0, Seen.announced, 0, 8)
    assert list(words.seen.outstanding) == [(0, 7), (0, 8)]
    words.tell_late(1.5, Seen.given_reset)
    assert list(words.seen.outstanding) == [(0, 8)] and not words.seen.resets
    words.tell(1.2, Seen.announced, 0, 9)  # a line of before, read only now
    assert list(words.seen.outstanding) == [(0, 8)]
    words.tell(3.1, Seen.announced, 0, 9)
    assert list(words.seen.outstanding) == [(0, 8), (0, 9)]


def test_what_comes_in_order_needs_no_place() -> None:
    words = InOrder()
    words.tell(1.0, Seen.announced, 0, 7)
    before = words.seen
    words.tell_late(1.0, Seen.given_reset)
    assert words.seen is before and words.seen.resets == {0} and words.newest == 1.0


def test_a_rule_that_was_met_remains_so() -> None:
    """It is met when reads are asked for, and by what was forgotten since."""
    words = InOrder(Seen(Rule(Release.REPEATED)))
    words.tell(1.0, Seen.repeated, 0)
    words.tell(2.0, Seen.enabled, 0)
    words.seen.due([])
    words.tell_late(1.5, Seen.given_reset)
    assert words.seen.met and words.seen.repeats == 1


def test_only_the_last_words_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_order, "_KEPT", 2)
    words = InOrder()
    for number in range(1, 7):
        words.tell(float(number), Seen.announced, 0, number)
    words.tell_late(0.5, Seen.given_reset)  # behind those that are not kept
    assert [page for _, page in words.seen.outstanding] == [1, 2, 3, 4, 5, 6]
    assert words.seen.resets == {0} and words.newest == 6.0
