# SPDX-License-Identifier: GPL-2.0-or-later
"""What puts two touches of a program in order: the program of one vCPU, Op.AFTER, and much planned pause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_APART_NS = 20_000_000
"""Touches with so much planned pause between them are in that order ..."""
_PER_TOUCH_NS = 5_000_000
"""... and so much more for each touch that either vCPU made before: what a synchronous read may take."""


@dataclass(frozen=True, slots=True)
class Move:
    """What a step of the program has to do with order.  ``after``: index of the step that it waits for, -1: none.
    ``ends``: of a touch: it has retired when its vCPU is past it, no token can put it aside.  ``waits``: the step waits
    for all touches of its vCPU before it (Op.WAIT)."""

    index: int
    vcpu: int
    gpa: int = 0
    touch: bool = False
    after: int = -1
    pause_ns: int = 0
    ends: bool = True
    waits: bool = False


@dataclass(frozen=True, slots=True)
class PlacedTouch:
    """A touch and what comes before it: planned pauses and touches of its vCPU, and of each vCPU the last step that is
    begun before it, and passed (-1: none is known to be).  ``over_at``: from which step of its own vCPU on it has
    retired; -1: nobody can say."""

    index: int
    vcpu: int
    gpa: int
    paused_ns: int
    touched: int
    known: tuple[int, ...]
    over_at: int = -1


def touches_of(moves: Iterable[Move]) -> list[PlacedTouch]:
    """The touches of a program, in the order of their indices."""
    steps = list(moves)
    nothing = (-1,) * (1 + max((m.vcpu for m in steps), default=0))
    paused, touched = Counter[int](), Counter[int]()
    now = dict.fromkeys(range(len(nothing)), nothing)  # of each vCPU: what is over when its next step begins
    over: dict[int, tuple[int, ...]] = {}  # of each step: what is over when it is
    found: list[PlacedTouch] = []
    for m in steps:
        known = now[m.vcpu]
        if m.after in over:
            known = _later(known, over[m.after])
        if m.touch:
            later = (w.index for w in steps if w.waits and w.vcpu == m.vcpu and w.index > m.index)
            over_at = m.index if m.ends else next(later, -1)
            paused_ns = paused[m.vcpu] + m.pause_ns
            found.append(PlacedTouch(m.index, m.vcpu, m.gpa, paused_ns, touched[m.vcpu], known, over_at))
            touched[m.vcpu] += 1
        paused[m.vcpu] += m.pause_ns
        over[m.index] = now[m.vcpu] = _later(known, tuple(m.index if v == m.vcpu else -1 for v in range(len(nothing))))
    return found


def undecided(a: PlacedTouch, b: PlacedTouch) -> bool:
    """Whether nothing puts two touches of different vCPUs in order."""
    if a.vcpu == b.vcpu or _is_over(a, before=b) or _is_over(b, before=a):
        return False
    return abs(a.paused_ns - b.paused_ns) < _APART_NS + _PER_TOUCH_NS * (a.touched + b.touched)


def _later(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(x, y) for x, y in zip(a, b, strict=True))


def _is_over(touch: PlacedTouch, *, before: PlacedTouch) -> bool:
    return 0 <= touch.over_at <= before.known[touch.vcpu]
