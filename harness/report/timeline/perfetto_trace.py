# SPDX-License-Identifier: GPL-2.0-or-later
"""A timeline as a Perfetto trace: each lane a track, spans as slices, arrows as flows.  ui.perfetto.dev opens it.

Field names are those of protos/perfetto/trace/track_event/*.proto.  Times are of the trace clock, so that slices can be
laid beside the kernel's own trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.report.printable import printable
from harness.report.timeline.drawing import SAYS, Arrow, Lane, Picture, Timeline

_SEQUENCE = 1
_ROOTS = ("seen", "the model")


@dataclass(slots=True)
class _Edge:
    """A beginning (1), an instant (2) or an end (0) on a track."""

    t_ns: int
    order: int
    track: int
    name: str = ""
    args: dict[str, str | int] = field(default_factory=dict)
    flows: list[int] = field(default_factory=list)


def perfetto_trace(timeline: Timeline) -> bytes:
    """The bytes of a perfetto.protos.Trace.

    Debug annotations: ``token`` on the instants of arrows, ``line`` of trace/events.txt, ``what``.
    """
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

    trace = Trace()
    tracks = _Tracks(trace)
    edges: list[_Edge] = []
    for n, side in enumerate((timeline.seen, timeline.predicted)):
        if side is not None:
            edges += _side(tracks, _ROOTS[n], side, flow_base=n << 32)
    if timeline.divergence is not None:
        mark = timeline.divergence
        track = tracks.add(tracks.root("seen"), "first divergence")
        edges.append(_Edge(mark.t_ns, 2, track, mark.text, {"line": mark.line}))
    for edge in sorted(edges, key=lambda e: (e.t_ns, e.order)):
        _write(trace, edge)
    return bytes(trace.SerializeToString())


class _Tracks:
    """Track descriptors: a root for what was seen, one for the model, below each a track for each row of a lane, in the
    order in which they were added."""

    def __init__(self, trace: Any) -> None:
        self._trace = trace
        self._next = 1
        self._roots: dict[str, int] = {}

    def root(self, name: str) -> int:
        if name not in self._roots:
            self._roots[name] = self.add(0, name)
        return self._roots[name]

    def add(self, parent: int, name: str) -> int:
        packet = self._trace.packet.add()
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.track_descriptor.uuid = self._next
        packet.track_descriptor.name = printable(name)
        if parent:
            packet.track_descriptor.parent_uuid = parent
            packet.track_descriptor.sibling_order_rank = self._next
        else:
            packet.track_descriptor.child_ordering = packet.track_descriptor.EXPLICIT
        self._next += 1
        return self._next - 1


def _side(tracks: _Tracks, name: str, side: Picture, flow_base: int) -> Iterator[_Edge]:
    root = tracks.root(name)
    first_row: dict[str, int] = {}
    for lane in side.lanes:
        if not lane.spans and not lane.marks:
            continue
        many = lane.rows > 1
        rows = [tracks.add(root, f"{lane.name} {row + 1}" if many else lane.name) for row in range(lane.rows)]
        events = tracks.add(root, f"{lane.name}: events")
        first_row[lane.key] = events
        yield from _lane(lane, rows, events)
    for n, arrow in enumerate(side.arrows):
        if arrow.from_key in first_row and arrow.to_key in first_row:
            yield from _arrow(arrow, first_row, flow_base + n + 1)


def _lane(lane: Lane, rows: list[int], events: int) -> Iterator[_Edge]:
    for i, span in enumerate(lane.spans):
        args: dict[str, str | int] = {"what": SAYS[span.look], "line": span.line}
        name = span.text or SAYS[span.look]
        yield _Edge(span.start_ns, 1, rows[lane.row(i)], name, args)
        yield _Edge(max(span.end_ns, span.start_ns), 0, rows[lane.row(i)])
    for mark in lane.marks:
        yield _Edge(mark.t_ns, 2, events, mark.text, {"line": mark.line})


def _arrow(arrow: Arrow, tracks: dict[str, int], flow: int) -> Iterator[_Edge]:
    """Two instants and a flow from the first to the second."""
    args: dict[str, str | int] = {"what": arrow.kind.value, "token": arrow.token}
    yield _Edge(arrow.from_ns, 2, tracks[arrow.from_key], arrow.text, args, [flow])
    yield _Edge(max(arrow.to_ns, arrow.from_ns), 3, tracks[arrow.to_key], arrow.text, args, [flow])


def _write(trace: Any, edge: _Edge) -> None:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent

    packet = trace.packet.add()
    packet.timestamp = edge.t_ns
    packet.trusted_packet_sequence_id = _SEQUENCE
    event = packet.track_event
    event.track_uuid = edge.track
    event.type = {0: TrackEvent.TYPE_SLICE_END, 1: TrackEvent.TYPE_SLICE_BEGIN}.get(edge.order, TrackEvent.TYPE_INSTANT)
    if edge.order:
        event.name = printable(edge.name)
    for key, value in edge.args.items():
        note = event.debug_annotations.add()
        note.name = key
        if isinstance(value, int):
            note.int_value = value
        else:
            note.string_value = value
    event.flow_ids.extend(edge.flows)
