# SPDX-License-Identifier: GPL-2.0-or-later
"""Decoded evidence as it is asked for."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from harness.evidence.decode import decode
from harness.model.events import Kind
from tests.unit.judge.golden import load

FILES = load("S23")
E = decode(FILES)


@given(st.sets(st.sampled_from(Kind)))
def test_events_of_some_kinds_are_those_in_their_order(kinds: set[Kind]) -> None:
    assert E.of(*kinds) == [event for event in E.events if event.kind in kinds]


def test_the_collector_is_as_it_was() -> None:
    assert gc.isenabled()
    gc.disable()
    try:
        decode(FILES)
        assert not gc.isenabled()
    finally:
        gc.enable()
    decode(FILES)
    assert gc.isenabled()
