# SPDX-License-Identifier: GPL-2.0-or-later
"""Exits after which the vCPU was entered again at once: most of a Linux guest's boot, and nothing asks for each.

Where a thread's entry, exit, entry, ..., exit stand directly behind each other in a trace, all between the first and
the last change nothing that a rule, a total or an episode knows, if each exit is of a kind that nobody looks at: a page
fault while no event was being delivered, an interrupt of the host, an interrupt window, CPUID, an MSR, a port other
than that of the guest's result.  Between exit and entry may stand the kvm_msr of an MSR that has nothing to do with
asynchronous page faults, and an interrupt of another vector that the vCPU itself accepts, or is given: it ends a halt,
but a halt begins with a missing page.

Among them may stand what other processors traced of their own: such lines of other vCPUs, their other entries, exits
and injections, and threads that they changed to or woke, unless those are this one.  Anything else ends them all.

Such lines are found in bulk.  Two lines alike but for the digits of their numbers are well-formed together.  So the
first line of each shape is matched, and of the others only what the shape does not show is looked at, a column of all
of them at a time.  What is not found here is read line by line, as is every damaged line.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, auto
from itertools import chain
from typing import NamedTuple

from harness.evidence.linux_result import RESULT_PORT
from harness.model.events import HEEDED_MSRS, HYPERVISOR_CALLBACK_VECTOR, MSR_ASYNC_PF_INT

_LINE = re.compile(
    r"(?P<head> *\S.{0,14}-(?P<tid>\d{1,10}) +\[(?P<cpu>\d{1,5})\] )[\w.#]{4,6}(?P<time> +\d{1,12}\.\d{6}): "
    r"(?:kvm_entry: vcpu (?P<entered>\d{1,4}), rip 0x[0-9a-f]{5,16}"
    r"|kvm_msr: msr_(?:read|write) (?P<msr>[0-9a-f]{1,8}) = 0x[0-9a-f]{1,16}"
    r"|kvm_apic_accept_irq: apicid (?P<apic>[0-9a-f]{1,2}) vec (?P<vector>\d{1,3}) \(Fixed\|edge\)"
    r"|kvm_inj_virq: IRQ 0x(?P<irq>[0-9a-f]{1,2})"
    r"|kvm_exit: vcpu (?P<left>\d{1,4}) reason (?P<reason>[A-Za-z_]{1,40})"
    r" rip 0x[0-9a-f]{1,16} info1 0x(?P<info1>[0-9a-f]{16}) info2 0x(?P<info2>[0-9a-f]{16})"
    r" intr_info 0x(?P<intr_info>[0-9a-f]{8}) error_code 0x[0-9a-f]{8}(?: requests 0x[0-9a-f]{16})?)",
    re.ASCII,
)
"""arch/x86/kvm/trace.h since 5.12.  An entry at the reset vector (rip 0xfff0) is looked for: none of short ones."""
_DECIMAL = ("time", "entered", "left", "vector")
_DELIVERS = {"npf": "intr_info", "EPT_VIOLATION": "info2"}
"""Which field says that an event was being delivered (trace_events.py: _exit)."""
_PORTS = frozenset(("io", "IO_INSTRUCTION"))
"""Their info1 has the port in bits 31:16 (APM volume 2, 15.10.2; SDM volume 3, table 28-5)."""
_REASONS = frozenset((
    *_DELIVERS, *_PORTS, "interrupt", "EXTERNAL_INTERRUPT", "vintr", "INTERRUPT_WINDOW", "cpuid", "CPUID", "msr",
    "MSR_READ", "MSR_WRITE",
))  # fmt: skip
_HEX_NUMBER = re.compile(r"(?:(?<=0x)|(?<=: msr_read )|(?<=: msr_write )|(?<=: apicid ))[0-9a-f]+")
_HEX_DIGITS = "0123456789abcdef"
_SHAPE = str.maketrans("123456789abcdef", "0" * 15)
_RARE = 32
"""A shape that fewer lines have is not worth a look."""
_ANY = re.compile(
    r".{1,24}?-(?P<tid>\d{1,10}) +\[(?P<cpu>\d{1,5})\] [\w.#]{4,6}(?P<time> +\d{1,12}\.\d{6}): "
    r"(?P<own>(?:kvm_(?:entry|exit|inj_virq|vcpu_wakeup)|(?P<names>sched_switch|sched_waking)): )?",
    re.ASCII,
)
"""A line, and whether it concerns nothing but the processor that traced it, and threads that it names."""
_NAMED = re.compile(r"pid=(\d{1,10})", re.ASCII)


class _Mark(IntEnum):
    """What a line is to its thread."""

    ENTRY = auto()
    EXIT = auto()
    OTHER_EXIT = auto()  # that somebody looks at
    MSR = auto()
    ACCEPTED = auto()
    GIVEN = auto()


_EVENTS = {
    _Mark.ENTRY: "kvm_entry", _Mark.EXIT: "kvm_exit", _Mark.MSR: "kvm_msr", _Mark.ACCEPTED: "kvm_apic_accept_irq",
    _Mark.GIVEN: "kvm_inj_virq",
}  # fmt: skip
_NAMES = tuple(f": {name}: ".translate(_SHAPE) for name in _EVENTS.values())
_INT = re.compile(f"msr_write {MSR_ASYNC_PF_INT:x} = 0x([0-9a-f]+)", re.ASCII)
_INT_SHAPE = f"msr_write {MSR_ASYNC_PF_INT:x} = 0x".translate(_SHAPE)


class RoundTrips(NamedTuple):
    """``lines``: by their numbers, from 0, those of each thread that stand directly behind each other on its processor,
    in order; the line before the first of them there is the thread's entry, and the one behind the last its next exit.
    ``by_cpu``: how many each processor has.  ``events``: which there are among them."""

    lines: Sequence[Sequence[int]] = ()
    by_cpu: Mapping[int, int] = {}
    events: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Thread:
    """What stands before the flags of a line: a thread on a processor.

    ``time``: where the time stands in its lines; ``vcpus``: which its entries name; ``lines``: those with a mark.
    """

    number: int
    tid: int
    cpu: int
    time: slice
    vcpus: set[int] = field(default_factory=set)
    lines: list[int] = field(default_factory=list)

    def __getitem__(self, mark: _Mark) -> str:
        """The character for a line of this thread."""
        return chr(0x100 + self.number * (len(_Mark) + 1) + mark)


class _Marks:
    """A character for each line: what it is to its thread, or a point."""

    def __init__(self, count: int) -> None:
        self.of = ["."] * count

    def put(self, thread: _Thread, mark: _Mark, numbers: Sequence[int]) -> None:
        char = thread[mark]
        for number in numbers:
            self.of[number] = char
        thread.lines += numbers


def round_trips(text: str, lines: Sequence[str]) -> RoundTrips:
    """
    :param lines: those of ``text``.
    """
    shapes = text.translate(_SHAPE).split("\n")
    if len(shapes) != len(lines) + 1:  # bytes that part lines for Python alone
        return RoundTrips()
    alike: defaultdict[str, list[int]] = defaultdict(list)
    for number, shape in enumerate(shapes):
        alike[shape].append(number)
    marks = _Marks(len(lines))
    threads: dict[str, _Thread] = {}
    accepted: list[tuple[_Thread, Sequence[int], re.Match[str]]] = []
    vectors = _vectors(alike, lines)
    for shape, numbers in alike.items():
        if len(numbers) < _RARE or not any(name in shape for name in _NAMES):
            continue
        match = _LINE.fullmatch(lines[numbers[0]])
        columns = _Columns.of([lines[n] for n in numbers])
        if match is None or not columns.well_formed(match):
            continue
        time, entered = slice(*match.span("time")), slice(*match.span("entered"))
        for told in columns.parted(numbers, [*range(match.end("head")), *range(entered.start, entered.stop)]):
            # One that is damaged is damaged in the entry before the round trips as well, which is read by itself.
            first = lines[told[0]]
            tid, cpu = first[slice(*match.span("tid"))], first[slice(*match.span("cpu"))]
            if not (tid.isdecimal() and cpu.isdecimal()):
                continue
            head = first[: match.end("head")]
            thread = threads.setdefault(head, _Thread(len(threads), int(tid), int(cpu), time))
            if thread.time != time:
                continue
            mark = _mark(match)
            if mark is _Mark.ENTRY:
                thread.vcpus.add(int(first[entered]))
            elif mark is _Mark.ACCEPTED:
                accepted.append((thread, told, match))
                continue
            marks.put(thread, mark, _unheeded(told, lines, match, vectors))
    for thread, told, match in accepted:
        apic = slice(*match.span("apic"))
        own = [n for n in _unheeded(told, lines, match, vectors) if thread.vcpus == {int(lines[n][apic], 16)}]
        marks.put(thread, _Mark.ACCEPTED, own)  # else it may end the halt of another
    return _ordered(marks.of, lines, threads.values())


def _vectors(alike: Mapping[str, Sequence[int]], lines: Sequence[str]) -> frozenset[int]:
    """Of asynchronous page faults: that of a Linux guest, and what any guest wrote."""
    wrote = (lines[number] for shape, numbers in alike.items() if _INT_SHAPE in shape for number in numbers)
    found = (int(match[1], 16) & 0xFF for match in map(_INT.search, wrote) if match)
    return frozenset((HYPERVISOR_CALLBACK_VECTOR, *found))


def _mark(match: re.Match[str]) -> _Mark:
    if match["entered"]:
        return _Mark.ENTRY
    if match["reason"]:
        return _Mark.EXIT if match["reason"] in _REASONS else _Mark.OTHER_EXIT
    return _Mark.MSR if match["msr"] else _Mark.ACCEPTED if match["vector"] else _Mark.GIVEN


@dataclass(frozen=True, slots=True)
class _Columns:
    """Lines of one shape, and so of one length, one behind the other."""

    text: str
    count: int
    length: int

    @classmethod
    def of(cls, lines: Sequence[str]) -> _Columns:
        return cls("".join(lines), len(lines), len(lines[0]))

    def __getitem__(self, at: int) -> str:
        """The character at a place of each line."""
        return self.text[at :: self.length]

    def well_formed(self, match: re.Match[str]) -> bool:
        """Whether behind the head all lines match in the way in which the one does that was matched."""
        first = match.string
        decimal = {at for name in _DECIMAL for at in range(*match.span(name)) if first[at].isdigit()}
        loose = {at for number in _HEX_NUMBER.finditer(first) for at in range(*number.span())}
        for at in range(match.start("time"), self.length):  # of the flags each letter or digit is one
            if at in decimal:
                if not self[at].isdigit():
                    return False
            elif first[at] in _HEX_DIGITS and at not in loose and self[at].count(first[at]) != self.count:
                return False
        return True

    def parted(self, numbers: Sequence[int], places: Sequence[int]) -> Collection[Sequence[int]]:
        """The numbers of the lines, those together that have the same at these places."""
        parting = [column for at in places if (column := self[at]).count(column[0]) != self.count]
        if not parting:
            return (numbers,)
        parts: defaultdict[str | tuple[str, ...], list[int]] = defaultdict(list)
        keys: Iterable[str | tuple[str, ...]] = parting[0] if len(parting) == 1 else zip(*parting, strict=True)
        for number, key in zip(numbers, keys, strict=True):
            parts[key].append(number)
        return parts.values()


def _unheeded(
    numbers: Sequence[int], lines: Sequence[str], match: re.Match[str], vectors: Collection[int]
) -> Sequence[int]:
    """Without page faults during which an event was being delivered, and MSRs, vectors and the port that somebody looks
    at."""
    for name, base, heeded in (("msr", 16, HEEDED_MSRS), ("vector", 10, vectors), ("irq", 16, vectors)):
        if match[name]:
            at = slice(*match.span(name))
            return [number for number in numbers if int(lines[number][at], base) not in heeded]
    if match["reason"] in _PORTS:
        at = slice(*match.span("info1"))
        return [number for number in numbers if int(lines[number][at], 16) >> 16 & 0xFFFF != RESULT_PORT]
    delivers = _DELIVERS.get(match["reason"] or "")
    if delivers is None:
        return numbers
    at, none = slice(*match.span(delivers)), "0" * len(match[delivers])
    return [number for number in numbers if lines[number][at] == none]


class _Stretches:
    """A trace, processor by processor: its lines that may end round trips there, and those in which they are.

    ``times``: of each line, as it is written; empty where there is none.
    """

    def __init__(self, marks: Sequence[str], lines: Sequence[str], threads: Collection[_Thread]) -> None:
        self.marks = marks
        self.times = [""] * len(lines)
        self.threads: defaultdict[int, list[_Thread]] = defaultdict(list)
        self.ends: list[int] = []  # on each processor
        self.own: defaultdict[int, list[int]] = defaultdict(list)  # by processor: what ends them there alone
        of_tid: defaultdict[int, list[int]] = defaultdict(list)
        for thread in threads:
            self.threads[thread.cpu].append(thread)
            of_tid[thread.tid] += thread.lines
            for number in thread.lines:
                self.times[number] = lines[number][thread.time]
        for number in (point.start() for point in re.finditer(r"\.", "".join(marks))):
            match = _ANY.match(lines[number])
            if match is not None:
                self.times[number] = match["time"]
            if match is None or not match["own"]:
                self.ends.append(number)
                continue
            self.own[int(match["cpu"])].append(number)
            of_tid[int(match["tid"])].append(number)
            for tid in _NAMED.findall(lines[number], match.end()) if match["names"] else ():
                of_tid[int(tid)].append(number)
        self.of_tid = {thread.tid: sorted(of_tid[thread.tid]) for thread in threads}

    def in_order(self) -> bool:
        """Whether no time goes backwards: tracefs merges the processors by it (trace.c:__find_next_entry)."""
        told = list(filter(None, self.times))
        return told == sorted(told)

    def runs(self) -> Iterator[tuple[_Thread, Sequence[int]]]:
        """Of the patterns between an entry and an exit: the numbers of their lines, these two included."""
        for cpu, threads in self.threads.items():
            where = sorted(chain(self.ends, self.own[cpu], *(thread.lines for thread in threads)))
            of = {thread[_Mark.ENTRY]: thread for thread in threads}
            told = "".join(map(self.marks.__getitem__, where))
            for run in re.finditer("|".join(map(_run, threads)), told):
                begin, end = run.span()
                around = where[begin - 1 : end + 1]
                thread = of[told[begin - 1]]
                mine = self.of_tid[thread.tid]
                # Else the thread was on another processor between, or was woken.
                if bisect_right(mine, around[-1]) - bisect_left(mine, around[0]) == len(around):
                    yield thread, around


def _ordered(marks: Sequence[str], lines: Sequence[str], threads: Collection[_Thread]) -> RoundTrips:
    """Those of a trace that is in order; else whoever reads it line by line says where it is not."""
    found: list[Sequence[int]] = []
    by_cpu: Counter[int] = Counter()
    among: set[str] = set()
    stretches = _Stretches(marks, lines, threads)
    for thread, around in stretches.runs() if stretches.in_order() else ():
        found.append(numbers := around[1:-1])
        by_cpu[thread.cpu] += len(numbers)
        among.update(map(marks.__getitem__, numbers))
    there = (name for mark, name in _EVENTS.items() if any(thread[mark] in among for thread in threads))
    return RoundTrips(found, by_cpu, frozenset(there))


def _run(thread: _Thread) -> str:
    """The pattern of the marks between an entry and an exit."""
    entry, exit_, other, *between = (thread[mark] for mark in _Mark)
    return f"(?<={entry})(?:{exit_}[{''.join(between)}]*{entry})+(?=[{exit_}{other}])"
