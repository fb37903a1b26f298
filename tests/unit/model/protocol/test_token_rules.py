# SPDX-License-Identifier: GPL-2.0-or-later
"""A token whose handler was cut off by a reset has no record in the guest's log; every other one has."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.model.protocol.rules import LoggedStart
from tests.unit.model.protocol_notation import FAILED_ENABLE, SET_UP, STANDARD, TOKEN_FAULT, halt, ready, run, token

ENABLED = "EXIT WRMSR:INT=0xf3 ENTRY EXIT WRMSR:EN=0x801009 ALL ACC ENTRY EXIT WRMSR:ACK=1 ENTRY"
LIFE = f"{token(1, 0)} {ready(1, 0)} {token(2, 1)}"
NEXT = f"EXIT CLEAR ENTRY {ENABLED} {token(3, 2)} {ready(3, 2)}"
INIT = f"EXIT CLEAR=2 ENTRY {ENABLED} {token(3, 2)} {ready(3, 2)}"


def logged(*ids: int, starts: tuple[int, ...] = ()) -> Mapping[str, object]:
    boots = (LoggedStart(), *(LoggedStart(tokens=n) for n in starts))
    return {"guest_tokens": {0: tuple((i << 12, 1) for i in ids)}, "guest_boots": {0: boots}}


@pytest.mark.parametrize("behind", [NEXT, INIT])
@pytest.mark.parametrize("ids", [(1, 2, 3), (1, 3)])
def test_the_last_token_before_a_start_has_a_record_or_none(behind: str, ids: tuple[int, ...]) -> None:
    context = logged(*ids, starts=(len(ids) - 1,))
    assert run(f"{SET_UP} {LIFE} {behind}", context, STANDARD) == (set(), set())


@pytest.mark.parametrize(
    ("ids", "starts"),
    [
        ((2, 3), (1,)),  # the first of the life, which lived on
        ((1, 4, 3), (2,)),  # another token in the same life
        ((1, 3), ()),  # no later life in the log
        ((1, 3, 3), (1,)),  # the later life has one too many
    ],
)
def test_no_other_token_is_missing(ids: tuple[int, ...], starts: tuple[int, ...]) -> None:
    violated, _ = run(f"{SET_UP} {LIFE} {NEXT}", logged(*ids, starts=starts), STANDARD)
    assert violated == {"D39"}


def test_a_life_that_goes_on_has_written_its_record() -> None:
    """The log has a start where the trace has no reset."""
    trace = f"{SET_UP} {LIFE} {ready(2, 1)} {token(3, 2)} {ready(3, 2)}"
    assert run(trace, logged(1, 3, starts=(1,)), STANDARD)[0] == {"D39"}
    trace = f"{SET_UP} {LIFE} {ready(2, 1)}"
    assert run(trace, logged(1, 3, starts=(1,)), STANDARD)[0] == {"D39"}
    assert run(trace, {**logged(1, 3, starts=(1,)), "log_ends_first": False}, STANDARD)[0] == set()


def test_a_token_whose_area_has_no_memory_is_a_halt_whether_or_not_hlt_exits() -> None:
    context = {"hlt_exits": False, "faults": TOKEN_FAULT}
    halted = f"{halt(1, 0)} DONE:0 ENTRY"
    assert run(f"{SET_UP} {FAILED_ENABLE} {halted}", context, STANDARD) == (set(), set())
    assert run(f"{SET_UP} {halted}", context, STANDARD)[0] == {"D23"}
