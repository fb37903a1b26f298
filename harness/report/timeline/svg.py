# SPDX-License-Identifier: GPL-2.0-or-later
"""A timeline as SVG: readable without a script, and small.

All of a lane's spans of one look are one path of strokes, so that thousands of entries and exits are a few kilobytes;
what is too short to be seen is drawn with its neighbour.  Reads, works and items are
shapes of their own with a title, up to a bound that is told.  report/page/page.js zooms the group "zoom" in x only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from harness.report.printable import printable
from harness.report.timeline.drawing import SAYS, Arrow, Lane, Look, Moment, Picture, Span, Timeline, ms

WIDTH = 1000
LEFT = 120
RIGHT = 24
_ALL = LEFT + WIDTH + RIGHT
_ROW = 11
_GAP = 5
_AXIS = 18
_TITLED = (Look.QUEUED, Look.WORK, Look.READ_V, Look.READ_W, Look.READ_OTHER, Look.RAN, Look.WAITS)
MAX_SHAPES = 90
"""Shapes with a title of their own per picture; arrows and marks as many again each."""


def svg(timeline: Timeline, *, most: int = MAX_SHAPES, fine: int = 4) -> str:
    """An <svg> element.  Everything that comes from a capture is escaped.

    :param most: so many shapes, arrows and marks of a lane have a title of their own.
    :param fine: what is shorter than this part of a pixel is drawn with its neighbour.
    """
    drawing = _Drawing(timeline, most, fine)
    body = list(drawing.parts())
    height = drawing.y + 4
    label = escape(printable(f"timeline of {timeline.title}"), quote=True)
    head = (
        f'<svg class="tl" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_ALL} {height}" role="img"'
        f' aria-label="{label}" tabindex="0"'
        f' data-span="{timeline.end_ns - timeline.start_ns}" data-left="{LEFT}" data-width="{WIDTH}" data-all="{_ALL}">'
    )
    more = f"<desc>{drawing.left_out} shapes and arrows have no title here</desc>" if drawing.left_out else ""
    return head + more + "".join(body) + "</svg>"


class _Drawing:
    def __init__(self, timeline: Timeline, most: int, fine: int) -> None:
        self._t = timeline
        self._most = most
        self._fine = fine
        self._scale = WIDTH / max(timeline.end_ns - timeline.start_ns, 1)
        self.y = _AXIS
        self._at: dict[str, int] = {}  # lane -> its y, of the picture that is being drawn
        self.left_out = 0

    def x(self, t_ns: int) -> float:
        """In the zoomed group's own coordinates: 0 to WIDTH."""
        return (t_ns - self._t.start_ns) * self._scale

    def parts(self) -> Iterator[str]:
        labels: list[str] = []
        shapes: list[str] = []
        self._side("seen", self._t.seen, labels, shapes)
        if self._t.predicted is not None:
            self.y += _GAP
            self._side("the model", self._t.predicted, labels, shapes)
        mark = self._t.divergence
        if mark is not None:
            shapes.append(
                f'<path class="div" d="M{_n(self.x(mark.t_ns))} {_AXIS}V{self.y}">{_title(self._when(mark))}</path>'
            )
        yield f'<svg x="{LEFT}" y="0" width="{WIDTH}" height="{self.y}"><g class="zoom">{"".join(shapes)}</g></svg>'
        yield f'<g class="axis">{"".join(self._axis())}</g><g class="lab">{"".join(labels)}</g>'

    def _side(self, what: str, side: Picture, labels: list[str], shapes: list[str]) -> None:
        labels.append(f'<text class="side" x="2" y="{self.y + 9}">{escape(what)}</text>')
        self.y += _ROW + 2
        self._at = {}
        room = self._most
        for lane in side.lanes:
            if not lane.spans and not lane.marks:
                continue
            self._at[lane.key] = self.y
            labels.append(f'<text x="8" y="{self.y + 9}">{escape(printable(lane.name))}</text>')
            drawn, room = self._lane(lane, room)
            shapes += drawn
            self.y += lane.rows * _ROW + _GAP
        shapes += self._arrows(side.arrows)

    def _lane(self, lane: Lane, room: int) -> tuple[list[str], int]:
        drawn: list[str] = []
        bulk: dict[Look, list[tuple[Span, int]]] = {}
        for i, span in enumerate(lane.spans):
            if span.look in _TITLED and room > 0:
                room -= 1
                drawn.append(self._shape(span, self.y + lane.row(i) * _ROW))
            else:
                self.left_out += span.look in _TITLED
                bulk.setdefault(span.look, []).append((span, lane.row(i)))
        paths = [self._bulk(lane, look, spans) for look, spans in bulk.items()]
        marks = [
            f'<path class="mk" d="M{_n(self.x(m.t_ns))} {self.y}v{_ROW - 1}">{_title(self._when(m))}</path>'
            for m in lane.marks[: self._most]
        ]
        rest = "".join(f"M{_n(self.x(m.t_ns))} {self.y}v{_ROW - 1}" for m in lane.marks[self._most :])
        if rest:
            marks.append(f'<path class="mk" d="{rest}">{_title(f"{lane.name}: more events")}</path>')
        return [*paths, *drawn, *marks], room

    def _shape(self, span: Span, y: int) -> str:
        x, width = self.x(span.start_ns), max((span.end_ns - span.start_ns) * self._scale, 0.5)
        height = _ROW - 2
        return (
            f'<rect class="{span.look}" x="{_n(x)}" y="{y}" width="{_n(width)}" height="{height}">'
            f"{_title(span.text)}</rect>"
        )

    def _bulk(self, lane: Lane, look: Look, spans: Sequence[tuple[Span, int]]) -> str:
        """Spans of one look as one path; neighbours that touch are one."""
        steps: list[tuple[int, int, int]] = []  # row, start, end, in steps of 1/fine of a pixel
        for span, row in spans:
            start, end = round(self.x(span.start_ns) * self._fine), round(self.x(span.end_ns) * self._fine)
            end = max(end, start + 1)
            if steps and steps[-1][0] == row and start <= steps[-1][2]:
                steps[-1] = row, steps[-1][1], max(end, steps[-1][2])
            else:
                steps.append((row, start, end))
        d, row_was, x_was = "", -1, 0
        for row, a, b in steps:
            if row == row_was:
                d += f"m{_n((a - x_was) / self._fine)} 0"
            else:
                d += f"M{_n(a / self._fine)} {self.y + row * _ROW + (_ROW - 2) / 2}"
            d += f"h{_n((b - a) / self._fine)}"
            row_was, x_was = row, b
        total = sum(span.end_ns - span.start_ns for span, _ in spans)
        text = f"{lane.name}: {SAYS[look]}, {len(spans)} times, {ms(total)} in all"
        return f'<path class="{look}" d="{d}">{_title(text)}</path>'

    def _arrows(self, arrows: Sequence[Arrow]) -> Iterator[str]:
        for arrow in arrows[: self._most]:
            if arrow.from_key not in self._at or arrow.to_key not in self._at:
                continue
            y1, y2 = self._at[arrow.from_key], self._at[arrow.to_key]
            y1, y2 = (y1 + _ROW - 2, y2) if y1 < y2 else (y1, y2 + _ROW - 2)
            d = f"M{_n(self.x(arrow.from_ns))} {y1}L{_n(self.x(arrow.to_ns))} {y2}"
            yield f'<path class="arrow {arrow.kind}" d="{d}">{_title(arrow.text)}</path>'
        self.left_out += max(len(arrows) - self._most, 0)

    def _axis(self) -> Iterator[str]:
        yield f'<path d="{"".join(f"M{LEFT + WIDTH * n // 10} 13V{self.y}" for n in range(11))}"/>'
        for n in range(11):
            t = (self._t.end_ns - self._t.start_ns) * n // 10
            yield f'<text x="{LEFT + WIDTH * n // 10}" y="10">{t / 1e6:.1f}{" ms" if n == 0 else ""}</text>'

    def _when(self, mark: Moment) -> str:
        return f"{mark.text} (line {mark.line})" if mark.line else mark.text


def _title(text: str) -> str:
    return f"<title>{escape(printable(text))}</title>"


def _n(value: float) -> str:
    """A coordinate, as short as it can be."""
    return f"{value:.1f}".removesuffix(".0")
