# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of a tracefs ``trace`` file -> lines with their common fields (kernel/trace/trace_output.c).

One line is  "<comm>-<tid> [<cpu>] <flags> <seconds>.<micros>: <event>: <text>".  A comm may hold spaces, dashes and
colons ("CPU 0/KVM"), so the line is split from the CPU field outwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from typing import NamedTuple

from harness.contract.capture import TraceStats
from harness.errors import CaptureDamaged
from harness.evidence.round_trips import RoundTrips, round_trips

_TAIL = re.compile(r"(\d{1,12})\.(\d{1,9}): ([A-Za-z_]\w*): ?(.*)", re.ASCII)
_LINE = re.compile(
    r"\s*(.{1,32}?)-(\d{1,10})\s+(?:\(\s*[-\d]+\)\s+)?\[(\d{1,5})\]\s+\S{4,6}\s+" + _TAIL.pattern, re.ASCII
)
"""A comm is short (TASK_COMM_LEN), and some of its bytes may be spaces or dashes: from its start on is fastest."""
_SECOND = tuple(10 ** (9 - digits) for digits in range(10))
"""By the number of digits behind the point: what the last one is worth in nanoseconds."""
_LOST = re.compile(r"^CPU:\d+ \[LOST (?P<n>\d{1,18}) EVENTS\]", re.ASCII)
_WRITTEN = re.compile(r"^# entries-in-buffer/entries-written: (\d{1,18})/(\d{1,18})\s", re.ASCII)
"""kernel/trace/trace.c:print_event_info"""


class Line(NamedTuple):
    """One trace line; ``number`` counts from 1 in the file, ``t_ns`` is the trace clock."""

    number: int
    comm: str
    tid: int
    cpu: int
    t_ns: int
    event: str
    text: str


@dataclass(frozen=True, slots=True)
class Trace:
    """The lines in the file's order, and how many events the kernel says it lost.

    ``written``: how many events the head of the file says are in it, and how many were ever written; None: it has none.
    ``folded``: by CPU, how many lines of round trips were well-formed and in order, and are not among the lines;
    ``folded_events``: of which events.
    """

    lines: tuple[Line, ...]
    lost: int
    written: tuple[int, int] | None = None
    folded: Mapping[int, int] = field(default_factory=dict)
    folded_events: frozenset[str] = frozenset()


_UNNAMED = "<...>"
_NAMES = re.compile(r"(?:prev|next)_comm=(.*?) (?:prev|next)_pid=(\d{1,10})", re.ASCII)
_BIO_OF = re.compile(r"\[(.+)\]$")


def _named(lines: list[Line]) -> list[Line]:
    """With the names of threads that the kernel had forgotten (saved_cmdlines), where other lines tell them."""
    names: dict[int, str] = {}
    for line in lines:
        if line.event == "sched_switch":
            names.update((int(tid), comm) for comm, tid in _NAMES.findall(line.text))
        elif line.comm != _UNNAMED:
            names.setdefault(line.tid, line.comm)
        elif line.event == "block_bio_queue" and (told := _BIO_OF.search(line.text)):
            names.setdefault(line.tid, told[1])
    return [line._replace(comm=names.get(line.tid, _UNNAMED)) if line.comm == _UNNAMED else line for line in lines]


def parse(text: str, *, fold: bool = False) -> Trace:
    """
    :param fold: without the lines of round trips (round_trips.py).
    :raise CaptureDamaged: a line that is neither comment, loss mark nor event, or time going backwards on a CPU.
    """
    if text and not text.endswith("\n"):
        raise CaptureDamaged("trace/events.txt: its last line is cut")
    lost = 0
    lines: list[Line] = []
    written: tuple[int, int] | None = None
    newest: dict[int, int] = {}
    heads: dict[str, tuple[str, int, int]] = {}  # what stands before the time, of few threads in few states
    width = 0
    every = text.splitlines()
    trips = round_trips(text, every) if fold else RoundTrips()
    for number, raw in _others(every, trips.lines):
        head = heads.get(raw[:width])
        match = _TAIL.match(raw, width) if head is not None else None
        if match is None and (whole := _LINE.match(raw)) is not None:
            width = whole.start(4)
            head = heads[raw[:width]] = whole[1], int(whole[2]), int(whole[3])
            match = _TAIL.match(raw, width)
        if match is None or head is None:
            mark, written_line = _LOST.match(raw), _WRITTEN.match(raw)
            if mark:
                lost += int(mark["n"])
            elif written_line:
                written = int(written_line[1]), int(written_line[2])
            elif raw.strip() and not raw.startswith("#"):
                raise CaptureDamaged(f"trace/events.txt:{number}: not a trace line: {raw[:120]!r}")
            continue
        comm, tid, cpu = head
        seconds, frac, event, rest = match.groups()
        t_ns = int(seconds) * 1_000_000_000 + int(frac) * _SECOND[len(frac)]
        if t_ns < newest.get(cpu, 0):
            raise CaptureDamaged(f"trace/events.txt:{number}: time goes backwards on CPU {cpu}: {raw.strip()!r}")
        newest[cpu] = t_ns
        lines.append(Line(number, comm, tid, cpu, t_ns, event, rest.rstrip()))
    if _UNNAMED in text:
        lines = _named(lines)
    return Trace(tuple(lines), lost, written, trips.by_cpu, trips.events)


def _others(lines: Sequence[str], without: Sequence[Sequence[int]]) -> Iterable[tuple[int, str]]:
    """Number, from 1, and text of the lines whose numbers, from 0, are in none of the others."""
    if not without:
        return enumerate(lines, 1)
    left = bytearray(b"\1") * len(lines)
    for number in chain.from_iterable(without):
        left[number] = 0
    return compress(enumerate(lines, 1), left)


def complete_until(trace: Trace, stats: TraceStats) -> int:
    """Trace clock (ns) up to which nothing is missing, for a trace that lost events.

    A CPU whose buffer was full dropped its newest events, so its last recorded one is the end of what is complete.
    0 when events were overwritten or a hole is marked inside: then no prefix can be trusted.
    """
    if trace.lost or any(cpu.overrun or cpu.commit_overrun for cpu in stats.cpus.values()):
        return 0
    full = {number for number, cpu in stats.cpus.items() if cpu.dropped_events}
    last = {line.cpu: line.t_ns for line in trace.lines}
    ends = [last.get(cpu, 0) for cpu in full]
    if any(cpu.left_out for cpu in stats.cpus.values()):  # all CPUs were cut at one moment
        ends.append(trace.lines[-1].t_ns if trace.lines else 0)
    return min(ends, default=0)
