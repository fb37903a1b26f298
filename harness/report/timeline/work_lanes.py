# SPDX-License-Identifier: GPL-2.0-or-later
"""Events -> asynchronous works and reads in flight, and the arrows between them and the vCPUs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.model.events import WAKE_ALL_TOKEN, Event, Kind
from harness.report.timeline.drawing import Arrow, ArrowKind, Lane, Look, Moment, Span, ms, packed

_PAGE = 12


@dataclass(slots=True)
class AsyncWork:
    """One struct kvm_async_pf, from kvm_setup_async_pf to kvm_async_pf_completed and the ready event.

    :ivar began_ns: async_pf_execute began; -1: nobody recorded it.
    :ivar done_ns: -1: never.
    :ivar ready_ns: kvm_async_pf_ready; -1: never.
    """

    vcpu: int
    token: int
    gpa: int
    queued_ns: int
    line: int = 0
    began_ns: int = -1
    done_ns: int = -1
    tid: int = 0
    ready_ns: int = -1
    injected: bool = False


def works_of(events: Iterable[Event]) -> tuple[AsyncWork, ...]:
    """The works in the order in which they were queued; ``events`` in order of time."""
    found: list[AsyncWork] = []
    began: dict[int, int] = {}
    newest: dict[int, AsyncWork] = {}
    for e in events:
        if e.kind is Kind.NP:
            newest[e.vcpu] = AsyncWork(e.vcpu, e.token, e.gpa, e.t_ns, e.line)
            found.append(newest[e.vcpu])
        elif e.kind is Kind.INJ and not e.flag and e.vcpu in newest:
            newest[e.vcpu].injected = True
        elif e.kind is Kind.ENTRY:
            newest.pop(e.vcpu, None)
        elif e.kind is Kind.WORK:
            began[e.tid] = e.t_ns
        elif e.kind is Kind.DONE:
            work = _open(found, e.gpa)
            if work is not None:
                work.done_ns, work.tid = e.t_ns, e.tid
                work.began_ns = began.pop(e.tid, -1)
        elif e.kind is Kind.RDY and e.token != WAKE_ALL_TOKEN:
            ready = next((w for w in found if w.token == e.token and w.ready_ns < 0 and w.vcpu == e.vcpu), None)
            if ready is not None:
                ready.ready_ns = e.t_ns
    return tuple(found)


def _open(works: Sequence[AsyncWork], gpa: int) -> AsyncWork | None:
    return next((w for w in works if w.gpa >> _PAGE == gpa >> _PAGE and w.done_ns < 0), None)


def work_lane(works: Sequence[AsyncWork], end_ns: int) -> Lane:
    """The kworkers' lane: each work waits in the queue, then runs until its page is there."""
    ends = [w.done_ns if w.done_ns >= 0 else end_ns for w in works]
    rows = packed(zip((w.queued_ns for w in works), ends, strict=True))
    spans: list[Span] = []
    row_of: list[int] = []
    for work, end, row in zip(works, ends, rows, strict=True):
        what = f"token {work.token:#x}, page at {work.gpa:#x}"
        never = "" if work.done_ns >= 0 else ", NEVER COMPLETED"
        who = f", kworker {work.tid}" if work.tid else ""
        begin = work.began_ns if work.began_ns >= 0 else work.queued_ns
        if begin > work.queued_ns:
            spans.append(Span(work.queued_ns, begin, Look.QUEUED, what, work.line))
            row_of.append(row)
        spans.append(Span(begin, max(end, begin), Look.WORK, f"{what}{who}, {ms(end - work.queued_ns)}{never}"))
        row_of.append(row)
    return Lane("w", "kworkers", tuple(spans), (), tuple(row_of))


def arrows_of(works: Iterable[AsyncWork]) -> Iterator[Arrow]:
    """Each work's arrows to and from its vCPU."""
    for w in works:
        v, what = f"v{w.vcpu}", f"token {w.token:#x} for {w.gpa:#x}"
        how = "injected into the guest" if w.injected else "the vCPU halts"
        yield Arrow(ArrowKind.WORK, w.queued_ns, v, max(w.began_ns, w.queued_ns), "w", f"{what}: {how}", w.token)
        if w.ready_ns >= 0:
            from_ns = w.done_ns if 0 <= w.done_ns <= w.ready_ns else w.ready_ns
            yield Arrow(ArrowKind.READY, from_ns, "w", w.ready_ns, v, f"{what}: ready", w.token)


@dataclass(slots=True)
class _Batch:
    """Reads that one thread submitted one after the other."""

    look: Look
    tid: int
    start_ns: int
    last_ns: int
    line: int
    sectors: list[tuple[int, int]]
    open: int = 0
    end_ns: int = -1


_TOGETHER_NS = 2_000_000


def read_lane(events: Iterable[Event], dev: int, ends_known: bool, end_ns: int) -> Lane:
    """The device's lane: reads in flight.  Reads that one thread submits in a row are one span.

    Where ends of reads were not recorded, or are a model's, each such row of reads is a mark.
    """
    batches: list[_Batch] = []
    current: dict[int, _Batch] = {}
    pending: dict[int, tuple[int, _Batch]] = {}  # by sector: sectors, batch
    for e in events:
        if e.dev != dev or not e.flag or e.kind not in (Kind.BIO, Kind.BIO_END):
            continue
        if e.kind is Kind.BIO_END:
            for sector in [s for s in pending if e.value <= s < e.value + max(e.data, 1)]:
                _, batch = pending.pop(sector)
                batch.open -= 1
                batch.end_ns = e.t_ns
            continue
        key = e.tid if e.tid else e.vcpu
        batch_ = current.get(key)
        if batch_ is None or e.t_ns - batch_.last_ns > _TOGETHER_NS:
            look = Look.READ_V if e.vcpu >= 0 else Look.READ_W if e.worker else Look.READ_OTHER
            batch_ = current[key] = _Batch(look, e.tid, e.t_ns, e.t_ns, e.line, [])
            batches.append(batch_)
        batch_.last_ns = e.t_ns
        batch_.sectors.append((e.value, e.data))
        batch_.open += 1
        pending[e.value] = e.data, batch_
    if not ends_known:
        marks = tuple(Moment(b.start_ns, _reads(b), b.line) for b in batches)
        return Lane("d", "device", (), marks)
    spans = tuple(
        Span(b.start_ns, end_ns if b.open else b.end_ns, b.look, _reads(b) + (", NOT ENDED" if b.open else ""), b.line)
        for b in batches
    )
    return Lane("d", "device", spans, (), packed((s.start_ns, s.end_ns) for s in spans))


def _reads(b: _Batch) -> str:
    who = {Look.READ_V: "the vCPU thread", Look.READ_W: "a kworker"}.get(b.look, "another thread")
    tid = f" (tid {b.tid})" if b.tid else ""
    where = f", sector {b.sectors[0][0]}" if b.sectors[0][1] else ""
    many = "1 read" if len(b.sectors) == 1 else f"{len(b.sectors)} reads"
    return f"{many} by {who}{tid}{where}"
