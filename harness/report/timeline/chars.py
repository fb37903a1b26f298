# SPDX-License-Identifier: GPL-2.0-or-later
"""A timeline in characters, for a terminal: what was seen, and below it what the model says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from harness.report.printable import printable
from harness.report.timeline.drawing import SAYS, Arrow, ArrowKind, Lane, Look, Picture, Timeline

GLYPHS = {
    Look.GUEST: "=",
    Look.KVM: "k",
    Look.RUNNABLE: "r",
    Look.HALTED: "H",
    Look.BLOCKED: "D",
    Look.IDLE: ".",
    Look.QUEUED: "q",
    Look.WORK: "W",
    Look.READ_V: "v",
    Look.READ_W: "w",
    Look.READ_OTHER: "o",
    Look.RAN: "#",
    Look.WAITS: "-",
}
_ORDER = (Look.BLOCKED, Look.HALTED)
"""What is told of a column wherever it is in it; else the look that takes most of it."""
_NAME = 18
MAX_ROWS = 24
"""Rows of one lane; what does not fit is told."""


def chars(timeline: Timeline, width: int = 110) -> list[str]:
    """Lines of at most ``width`` characters, which are at least 60.

    Below each vCPU ^ marks a fault, T one with a token, R a ready event; X marks the first divergence.
    """
    columns = max(width, 60) - _NAME - 1
    span = max(timeline.end_ns - timeline.start_ns, 1)

    def column(t_ns: int) -> int:
        return min(max((t_ns - timeline.start_ns) * columns // span, 0), columns - 1)

    lines = [printable(timeline.title)[:width], _axis(span, columns)]
    shown: set[Look] = set()
    for name, side in (("seen", timeline.seen), ("the model", timeline.predicted)):
        if side is None:
            continue
        lines.append(f"-- {name} ".ljust(_NAME + 1 + columns, "-"))
        for lane in side.lanes:
            lines += _lane(lane, side, columns, column, span, shown)
    mark = timeline.divergence
    if mark is not None:
        at = column(mark.t_ns)
        lines.append(f"{'first divergence':<{_NAME}} {' ' * at}X")
        lines.append(printable(f"  X {mark.text}" + (f" (events.txt:{mark.line})" if mark.line else "")))
    lines += [printable(note) for note in timeline.notes]
    lines += _key(shown, width)
    return lines


def _axis(span: int, columns: int) -> str:
    marks = [" "] * (columns + 12)
    for n in range(5):
        text = f"{span * n / 4 / 1e6:.1f}"
        at = min(columns * n // 4, columns - len(text))
        marks[at : at + len(text)] = text
    return f"{'ms':<{_NAME}} {''.join(marks).rstrip()}"


def _lane(
    lane: Lane, side: Picture, columns: int, column: Callable[[int], int], span: int, shown: set[Look]
) -> Iterator[str]:
    if not lane.spans and not lane.marks:
        return
    rows = min(lane.rows, MAX_ROWS)
    for row in range(rows):
        mine = [s for i, s in enumerate(lane.spans) if lane.row(i) == row]
        taken: list[dict[Look, int]] = [{} for _ in range(columns)]
        for s in mine:
            first, last = column(s.start_ns), column(s.end_ns)
            for at in range(first, last + 1):
                share = s.end_ns - s.start_ns if first == last else span // columns
                taken[at][s.look] = taken[at].get(s.look, 0) + share
        text = "".join(_glyph(looks, shown) for looks in taken)
        yield f"{lane.name if row == 0 else '':<{_NAME}.{_NAME}} {text.rstrip()}".rstrip()
    if lane.rows > rows:
        yield f"{'':<{_NAME}} ... and {lane.rows - rows} more rows"
    if lane.key.startswith("v"):
        marks = _marks(lane, side.arrows, columns, column)
        if marks.strip():
            yield f"{'':<{_NAME}} {marks.rstrip()}"
    elif lane.marks:
        bars = [" "] * columns
        for m in lane.marks:
            bars[column(m.t_ns)] = "|"
        yield f"{lane.name:<{_NAME}.{_NAME}} {''.join(bars).rstrip()}"


def _glyph(looks: dict[Look, int], shown: set[Look]) -> str:
    if not looks:
        return " "
    look = next((one for one in _ORDER if one in looks), None) or max(looks, key=lambda one: looks[one])
    shown.add(look)
    return GLYPHS[look]


def _marks(lane: Lane, arrows: Sequence[Arrow], columns: int, column: Callable[[int], int]) -> str:
    at = [" "] * columns
    for m in lane.marks:
        if m.text.startswith("kvm_page_fault"):
            at[column(m.t_ns)] = "^"
    for a in arrows:
        if a.kind is ArrowKind.WORK and a.from_key == lane.key and "injected" in a.text:
            at[column(a.from_ns)] = "T"
    for a in arrows:
        if a.kind is ArrowKind.READY and a.to_key == lane.key:
            at[column(a.to_ns)] = "R"
    return "".join(at)


def _key(shown: set[Look], width: int) -> list[str]:
    words = [f"{GLYPHS[look]} {SAYS[look]}" for look in Look if look in shown] + ["^ fault", "T token", "R ready"]
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 3 > width:
            lines.append("")
        lines[-1] += ("   " if lines[-1] else "") + word
    return lines
