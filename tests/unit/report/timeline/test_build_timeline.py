# SPDX-License-Identifier: GPL-2.0-or-later
"""Timelines of golden captures say what the captures' own totals and guest logs say."""

from __future__ import annotations

import dataclasses
import gzip
import xml.etree.ElementTree as ET

import pytest

from harness.contract.probe_abi import Record
from harness.judge.verdict_types import Finding
from harness.model.events import Kind
from harness.report.timeline.build_timeline import build_timeline
from harness.report.timeline.drawing import ArrowKind, Look, Timeline
from harness.report.timeline.perfetto_trace import perfetto_trace
from harness.report.timeline.svg import svg
from tests.unit.report.judged import golden

CAPTURES = [("captures", n) for n in ("S23", "S29", "S36", "S39", "S61", "S64")] + [
    ("captures-noio", n) for n in ("S23", "S29")
]


def timeline(folder: str, name: str) -> Timeline:
    found = build_timeline(golden(folder, name), most_rows=1000)
    assert found is not None
    return found


@pytest.mark.parametrize(("folder", "name"), CAPTURES)
def test_as_many_tokens_readies_and_items_as_the_evidence_has(folder: str, name: str) -> None:
    judged, drawn = golden(folder, name), timeline(folder, name)
    assert judged.evidence is not None and judged.evidence.guest is not None
    count = {kind: sum(a.kind is kind for a in drawn.seen.arrows) for kind in ArrowKind}
    assert count[ArrowKind.WORK] == sum(e.kind is Kind.NP for e in judged.evidence.events)
    assert count[ArrowKind.READY] == judged.verdict.total("RDY")
    assert count[ArrowKind.TOKEN] == judged.verdict.total("NPt")
    items = {s.text.partition(":")[0] for lane in drawn.seen.lanes if lane.key[0] == "i" for s in lane.spans}
    started = {r.item for r in judged.evidence.guest.all() if r.kind is Record.START}
    assert items == {f"item {n}" for n in started}


@pytest.mark.parametrize(("folder", "name"), CAPTURES)
def test_the_guests_clock_keeps_causes_before_effects(folder: str, name: str) -> None:
    drawn = timeline(folder, name)
    for arrow in drawn.seen.arrows:
        assert arrow.from_ns <= arrow.to_ns
    waits = [s for lane in drawn.seen.lanes if lane.key[0] == "i" for s in lane.spans if s.look is Look.WAITS]
    tokens = [a for a in drawn.seen.arrows if a.kind is ArrowKind.TOKEN]
    assert len(waits) == len(tokens)
    readies = sorted(a.to_ns for a in drawn.seen.arrows if a.kind is ArrowKind.READY)
    for span in waits:  # an item goes on only after some ready event
        assert readies and span.end_ns >= readies[0]


def test_the_model_stands_beside_with_the_same_halt() -> None:
    drawn = timeline("captures", "S29")
    assert drawn.predicted is not None
    halts = []
    for side in (drawn.seen, drawn.predicted):
        (lane,) = [lane for lane in side.lanes if lane.key == "v0"]
        halts.append(sum(s.end_ns - s.start_ns for s in lane.spans if s.look is Look.HALTED))
    assert halts[0] > 0
    assert halts[1] > 0


def test_a_divergence_lies_where_its_line_of_the_trace_does() -> None:
    judged = golden("captures", "S29")
    assert judged.evidence is not None
    event = next(e for e in judged.evidence.events if e.kind is Kind.REP)
    verdict = dataclasses.replace(judged.verdict, findings=(Finding("D08", "no <b>live</b> NP", line=event.line),))
    drawn = build_timeline(dataclasses.replace(judged, verdict=verdict))
    assert drawn is not None and drawn.divergence is not None
    assert (drawn.divergence.t_ns, drawn.divergence.line) == (event.t_ns, event.line)
    root = ET.fromstring(svg(drawn))
    (mark,) = [e for e in root.iter() if e.get("class") == "div"]
    assert "".join(mark.itertext()).startswith("D08: no <b>live</b> NP")


@pytest.mark.parametrize(("folder", "name"), CAPTURES)
@pytest.mark.parametrize("most", [0, 5, 1000])
def test_the_svg_is_xml_and_what_is_not_titled_is_told(folder: str, name: str, most: int) -> None:
    drawn = timeline(folder, name)
    root = ET.fromstring(svg(drawn, most=most))
    shapes = [e for e in root.iter() if e.tag.endswith("rect")]
    assert len(shapes) <= 2 * most
    whole = [s for lane in drawn.seen.lanes for s in lane.spans if s.look in (Look.WORK, Look.RAN, Look.READ_V)]
    assert any(e.tag.endswith("desc") for e in root.iter()) or len(whole) <= most
    assert root.get("tabindex") == "0"


@pytest.mark.parametrize(("folder", "name"), CAPTURES)
def test_the_tokens_are_found_in_the_perfetto_trace(folder: str, name: str) -> None:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

    judged = golden(folder, name)
    assert judged.evidence is not None
    trace = Trace()
    trace.ParseFromString(gzip.decompress(gzip.compress(perfetto_trace(timeline(folder, name)))))
    events = [p for p in trace.packet if p.HasField("track_event")]
    tokens = {note.int_value for p in events for note in p.track_event.debug_annotations if note.name == "token"}
    assert tokens == {e.token for e in judged.evidence.events if e.kind is Kind.NP}
    depth: dict[int, int] = {}
    for p in events:
        step = {TrackEvent.TYPE_SLICE_BEGIN: 1, TrackEvent.TYPE_SLICE_END: -1}.get(p.track_event.type, 0)
        depth[p.track_event.track_uuid] = depth.get(p.track_event.track_uuid, 0) + step
        assert depth[p.track_event.track_uuid] in (0, 1), "no slice in another on one track"
    assert not any(depth.values())
    known = {p.track_descriptor.uuid for p in trace.packet if p.HasField("track_descriptor")}
    assert set(depth) <= known
    flows: dict[int, int] = {}
    for p in events:
        for flow in p.track_event.flow_ids:
            flows[flow] = flows.get(flow, 0) + 1
    assert set(flows.values()) <= {2}


def test_nothing_is_drawn_without_a_trace() -> None:
    judged = golden("captures", "S29")
    assert judged.evidence is not None
    assert build_timeline(dataclasses.replace(judged, evidence=None)) is None
    assert build_timeline(dataclasses.replace(judged, evidence=dataclasses.replace(judged.evidence, events=()))) is None
