# SPDX-License-Identifier: GPL-2.0-or-later
"""A timeline as data: lanes with spans, arrows between them, marks.  Nothing here knows how it is drawn.

Times are nanoseconds of the trace clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Look(StrEnum):
    """What a span shows; the value names its class in a drawing."""

    GUEST = "guest"  # the vCPU runs the guest: kvm_entry to kvm_exit
    KVM = "kvm"  # its thread runs in the host
    RUNNABLE = "runnable"  # its thread was preempted, or has been woken and waits for a processor
    HALTED = "halted"  # kvm_vcpu_block for KVM_REQ_APF_HALT: asleep until a page is ready
    BLOCKED = "blocked"  # asleep in TASK_UNINTERRUPTIBLE: waits for I/O or a lock
    IDLE = "idle"  # asleep in the guest's own HLT, or in userspace
    QUEUED = "queued"  # asynchronous work waits for a kworker
    WORK = "work"  # async_pf_execute runs, or waits for its page
    READ_V = "read-v"  # a read in flight that the vCPU thread submitted
    READ_W = "read-w"  # ... that a kworker submitted
    READ_OTHER = "read-o"  # ... that another thread submitted
    RAN = "ran"  # an item of the guest's program runs
    WAITS = "waits"  # an item waits for its token to become ready


SAYS = {
    Look.GUEST: "runs the guest",
    Look.KVM: "in the host",
    Look.RUNNABLE: "runnable, no processor",
    Look.HALTED: "halted for an asynchronous page fault",
    Look.BLOCKED: "blocked (D)",
    Look.IDLE: "idle",
    Look.QUEUED: "work queued",
    Look.WORK: "work in async_pf_execute",
    Look.READ_V: "read in flight, submitted by the vCPU thread",
    Look.READ_W: "read in flight, submitted by a kworker",
    Look.READ_OTHER: "read in flight, submitted by another thread",
    Look.RAN: "item runs",
    Look.WAITS: "item waits for its token",
}


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasts.  ``line``: of trace/events.txt where it begins, 0 where there is none."""

    start_ns: int
    end_ns: int
    look: Look
    text: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happens at once."""

    t_ns: int
    text: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """A row.  ``key`` names it for arrows ("v0", "w"); ``rows``: how many rows its spans need, from 0 in ``row_of``."""

    key: str
    name: str
    spans: tuple[Span, ...]
    marks: tuple[Moment, ...] = ()
    row_of: tuple[int, ...] = ()  # by span; empty: all in the first

    @property
    def rows(self) -> int:
        return max(self.row_of, default=0) + 1

    def row(self, index: int) -> int:
        """The row of a span."""
        return self.row_of[index] if self.row_of else 0


class ArrowKind(StrEnum):
    """What an arrow says; the value names its class in a drawing."""

    WORK = "a-work"  # kvm_setup_async_pf: from the fault to the work
    TOKEN = "a-token"  # "page not present" with a token: from the vCPU to the guest's item
    READY = "a-ready"  # kvm_arch_async_page_present: from the completed work to the vCPU


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one lane to another."""

    kind: ArrowKind
    from_ns: int
    from_key: str
    to_ns: int
    to_key: str
    text: str
    token: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """One side of a timeline: what was seen, or what the model says."""

    lanes: tuple[Lane, ...]
    arrows: tuple[Arrow, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """What was seen, and beside it what the model says, over one axis.

    :ivar divergence: where the two part first; None when they do not, or not at a time.
    :ivar notes: what is not in the picture, and why.
    """

    title: str
    start_ns: int
    end_ns: int
    seen: Picture
    predicted: Picture | None = None
    divergence: Moment | None = None
    notes: tuple[str, ...] = field(default=())


def packed(spans: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """For each (start, end), in order of start, the first row that is free by then: no two in a row overlap."""
    free_at: list[int] = []
    rows: list[int] = []
    for start, end in spans:
        row = next((i for i, t in enumerate(free_at) if t <= start), len(free_at))
        if row == len(free_at):
            free_at.append(end)
        else:
            free_at[row] = end
        rows.append(row)
    return tuple(rows)


def cut(lane: Lane, start_ns: int, end_ns: int) -> Lane:
    """The lane within a window of time."""
    kept = [
        (Span(max(s.start_ns, start_ns), min(s.end_ns, end_ns), s.look, s.text, s.line), lane.row(i))
        for i, s in enumerate(lane.spans)
        if s.end_ns > start_ns and s.start_ns < end_ns
    ]
    marks = tuple(m for m in lane.marks if start_ns <= m.t_ns <= end_ns)
    return Lane(lane.key, lane.name, tuple(s for s, _ in kept), marks, tuple(r for _, r in kept) if lane.row_of else ())


def ms(ns: int) -> str:
    """Milliseconds for people."""
    return f"{ns / 1e6:.3f} ms"


def bounds(lanes: Sequence[Lane]) -> tuple[int, int]:
    """First start and last end of all spans; (0, 0) when there is none."""
    starts = [s.start_ns for lane in lanes for s in lane.spans]
    return (min(starts), max(s.end_ns for lane in lanes for s in lane.spans)) if starts else (0, 0)
