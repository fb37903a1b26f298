# SPDX-License-Identifier: GPL-2.0-or-later
"""What is in order among the touches of several vCPUs, by vector clocks: held against a walk along all edges."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from harness.model.simulation.program_order import Move, touches_of, undecided


@st.composite
def programs(draw: st.DrawFn) -> list[Move]:
    moves: list[Move] = []
    for index in range(draw(st.integers(1, 14))):
        vcpu = draw(st.integers(0, 3))
        others = [m.index for m in moves if m.vcpu != vcpu]
        after = draw(st.sampled_from([-1, *others]))
        moves.append(Move(index, vcpu, gpa=0x1000, touch=after == -1, after=after))
    return moves


def comes_before(moves: list[Move], a: int, b: int) -> bool:
    """Along the program of each vCPU, and from a step to those that are after it."""
    reached, todo = {a}, [a]
    while todo:
        at = moves[todo.pop()]
        nexts = [m.index for m in moves if m.index > at.index and (m.vcpu == at.vcpu or m.after == at.index)]
        todo += [n for n in nexts if n not in reached]
        reached |= set(nexts)
    return b in reached


@given(programs())
def test_two_touches_are_undecided_when_no_way_leads_from_one_to_the_other(moves: list[Move]) -> None:
    for a, b in combinations(touches_of(moves), 2):
        ordered = comes_before(moves, a.index, b.index) or comes_before(moves, b.index, a.index)
        assert undecided(a, b) == undecided(b, a) == (not ordered)


def test_only_a_pause_that_is_long_for_what_came_before_it_puts_touches_in_order() -> None:
    def race(pause_ns: int) -> bool:
        first = [Move(n, 0, touch=True) for n in range(3)]
        last, late = touches_of([*first, Move(3, 1, touch=True, pause_ns=pause_ns)])[2:]
        return undecided(last, late)

    assert race(0) and race(29_999_999) and not race(30_000_000)  # 20 ms, and 5 ms for each of two touches before


def test_a_touch_that_may_be_put_aside_is_over_for_others_where_its_vcpu_waits_for_it() -> None:
    def race(*, ends: bool, waits: bool) -> bool:
        moves = [
            Move(0, 0, touch=True, ends=ends), Move(1, 0, waits=waits), Move(2, 1, after=1), Move(3, 1, touch=True)
        ]  # fmt: skip
        return undecided(*touches_of(moves))

    assert race(ends=False, waits=False)
    assert not race(ends=True, waits=False) and not race(ends=False, waits=True)
