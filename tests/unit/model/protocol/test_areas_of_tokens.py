# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the flags of a token are at the end: in the area that EN named when it came (D39, D46)."""

from __future__ import annotations

import pytest

from harness.model.kernels import find_kernel
from tests.unit.model.protocol_notation import (
    ACKED,
    L2_FAULT,
    L2_LOST,
    SET_UP,
    VMEXITS,
    l2_token,
    ready,
    run,
    token,
)

N61 = find_kernel("nowait-6.1")  # of which an L2's token is lost (F2)
POOL = 0x1000000
LOST = f"{SET_UP} {VMEXITS.replace('0x80100d', '0x100000d')} {ACKED} {L2_LOST.format(i=1, p=0)}"
MOVED = f"{LOST} EXIT DONE:0 RDY:1@0 ACC ENTRY {ACKED} {VMEXITS} {ACKED} {l2_token(2, 1)}"
TOLD = f"{SET_UP.replace('0x801009', '0x1000009')} {token(1, 0)} {ready(1, 0)}"
ONCE = f"{SET_UP} {token(1, 0)} {ready(1, 0)}"


@pytest.mark.parametrize(
    ("text", "own", "pool", "data", "broken"),
    [
        (LOST, 0, 1, False, set()),
        (LOST, 0, 1, True, set()),
        (LOST, 0, 0, True, {"D46"}),
        (LOST, 1, 1, True, {"D39"}),
        (MOVED, 0, 1, True, set()),  # what is told in another area clears nothing in this one
        (MOVED, 0, 0, True, {"D46"}),
        (TOLD, 0, 0, True, set()),
        (TOLD, 0, 7, True, {"D39"}),
        (ONCE, 0, 7, True, set()),  # before its first token it has what the page held
        (ONCE, 0, 7, False, {"D39"}),
    ],
)
def test_flags_are_left_where_they_were_written(text: str, own: int, pool: int, data: bool, broken: set[str]) -> None:
    context = {
        "faults": L2_FAULT if "L2_" in text else None,
        "shared_flags": {0: own},
        "other_areas": {POOL: (pool, True)},
    }
    violated, _ = run(text, {**context, "area_of_data": POOL if data else None}, N61)
    assert violated & {"D39", "D46"} == broken


def test_a_guest_that_starts_anew_zeroes_its_own_areas() -> None:
    own = f"{SET_UP} {VMEXITS} {ACKED} {L2_LOST.format(i=1, p=0)} EXIT CLEAR ENTRY"
    for text, flags, pool in ((own, 0, 0), (f"{LOST} EXIT CLEAR ENTRY", 0, 1)):
        context = {"faults": L2_FAULT, "shared_flags": {0: flags}, "other_areas": {POOL: (pool, True)}}
        assert not run(text, context, N61)[0] & {"D39", "D46"}
