# SPDX-License-Identifier: GPL-2.0-or-later
"""Works and reads, from events that were written by hand."""

from __future__ import annotations

from harness.model.events import WAKE_ALL_TOKEN, Event, Kind
from harness.report.timeline.drawing import ArrowKind, Look
from harness.report.timeline.work_lanes import arrows_of, read_lane, work_lane, works_of

NP = Event(Kind.NP, 0, 10, token=0x1000, gpa=0x5123)
EVENTS = [
    NP, Event(Kind.INJ, 0, 11), Event(Kind.ENTRY, 0, 12), Event(Kind.WORK, -1, 20, tid=7, worker=True),
    Event(Kind.DONE, -1, 50, gpa=0x5000, tid=7, worker=True), Event(Kind.RDY, 0, 55, token=WAKE_ALL_TOKEN),
    Event(Kind.RDY, 0, 60, token=0x1000),
]  # fmt: skip


def test_a_work_from_its_fault_to_its_ready_event() -> None:
    (work,) = works_of(EVENTS)
    assert (work.queued_ns, work.began_ns, work.done_ns, work.ready_ns, work.tid) == (10, 20, 50, 60, 7)
    assert work.injected
    spans = work_lane([work], 100).spans
    assert [(s.start_ns, s.end_ns, s.look) for s in spans] == [(10, 20, Look.QUEUED), (20, 50, Look.WORK)]
    arrows = list(arrows_of([work]))
    assert [(a.kind, a.from_ns, a.to_ns) for a in arrows] == [(ArrowKind.WORK, 10, 20), (ArrowKind.READY, 50, 60)]
    assert "injected" in arrows[0].text


def test_a_work_that_is_never_done_says_so_and_lasts_to_the_end() -> None:
    (work,) = works_of([NP])
    (span,) = work_lane([work], 100).spans
    assert (span.start_ns, span.end_ns) == (10, 100)
    assert "NEVER COMPLETED" in span.text
    assert [a.kind for a in arrows_of([work])] == [ArrowKind.WORK]


def bio(kind: Kind, t: int, sector: int, tid: int = 0, vcpu: int = -1, worker: bool = False, many: int = 8) -> Event:
    return Event(kind, vcpu, t, value=sector, data=many, flag=True, dev=5, tid=tid, worker=worker)


def test_reads_of_a_thread_are_one_span_until_the_last_has_ended() -> None:
    events = [bio(Kind.BIO, 1, 0, 9, 0), bio(Kind.BIO, 2, 8, 9, 0), bio(Kind.BIO, 5, 80, 7, worker=True),
              bio(Kind.BIO_END, 30, 8), bio(Kind.BIO_END, 40, 0)]  # fmt: skip
    lane = read_lane(events, 5, True, 100)
    assert [(s.start_ns, s.end_ns, s.look) for s in lane.spans] == [(1, 40, Look.READ_V), (5, 100, Look.READ_W)]
    assert lane.spans[0].text.startswith("2 reads by the vCPU thread (tid 9)")
    assert lane.spans[1].text.endswith("NOT ENDED")
    assert lane.row(0) != lane.row(1)


def test_one_completion_may_end_several_reads() -> None:
    lane = read_lane(
        [bio(Kind.BIO, 1, 0, 9, 0), bio(Kind.BIO, 2, 8, 9, 0), bio(Kind.BIO_END, 30, 0, many=16)], 5, True, 99
    )
    assert [(s.start_ns, s.end_ns) for s in lane.spans] == [(1, 30)]


def test_where_no_end_was_recorded_a_read_is_a_mark() -> None:
    lane = read_lane([bio(Kind.BIO, 1, 0, 9, 0)], 5, False, 100)
    assert not lane.spans
    assert [m.t_ns for m in lane.marks] == [1]
    assert not read_lane([bio(Kind.BIO, 1, 0, 9, 0)], 6, False, 100).marks, "another device"
