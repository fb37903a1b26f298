# SPDX-License-Identifier: GPL-2.0-or-later
"""Exits after which the vCPU was entered again at once: most of a Linux guest's boot, and nothing asks for each.

Where a thread's entry, exit, entry, ..., exit stand directly behind each other in a trace, all between the first and
the last change nothing that a rule, a total or an episode knows, if each exit is of a kind that nobody looks at: a page
fault while no event was being delivered, an interrupt of the host, CPUID, an MSR (whose kvm_msr stands between exit and
entry) that has nothing to do with asynchronous page faults.

Such lines are found in bulk.  Two lines alike but for the digits of their numbers are well-formed together.  So the
first line of each shape is matched, and of the others only what the shape does not show is looked at, a column of all
of them at a time.  What is not found here is read line by line, as is every damaged line.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from harness.model.events import HEEDED_MSRS

_LINE = re.compile(
    r"(?P<head> *\S.{0,14}-\d{1,10} +\[\d{1,5}\] )[\w.#]{4,6}(?P<time> +\d{1,12}\.\d{6}): "
    r"(?:(?P<entry>kvm_entry: )vcpu (?P<entered>\d{1,4}), rip 0x[0-9a-f]{5,16}"
    r"|kvm_msr: msr_(?:read|write) (?P<msr>[0-9a-f]{1,8}) = 0x[0-9a-f]{1,16}"
    r"|kvm_exit: vcpu (?P<left>\d{1,4}) reason"
    r" (?P<reason>npf|EPT_VIOLATION|interrupt|EXTERNAL_INTERRUPT|cpuid|CPUID|msr|MSR_READ|MSR_WRITE)"
    r" rip 0x[0-9a-f]{1,16} info1 0x[0-9a-f]{16} info2 0x(?P<info2>[0-9a-f]{16})"
    r" intr_info 0x(?P<intr_info>[0-9a-f]{8}) error_code 0x[0-9a-f]{8}(?: requests 0x[0-9a-f]{16})?)",
    re.ASCII,
)
"""arch/x86/kvm/trace.h since 5.12.  An entry at the reset vector (rip 0xfff0) is looked for: none of short ones."""
_DECIMAL = ("time", "entered", "left")
_DELIVERS = {"npf": "intr_info", "EPT_VIOLATION": "info2"}
"""Which field says that an event was being delivered (trace_events.py: _exit)."""
_HEX_NUMBER = re.compile(r"(?:(?<=0x)|(?<=: msr_read )|(?<=: msr_write ))[0-9a-f]+")
_HEX_DIGITS = "0123456789abcdef"
_SHAPE = str.maketrans("123456789abcdef", "0" * 15)
_NAMES = tuple(name.translate(_SHAPE) for name in (": kvm_entry: ", ": kvm_exit: ", ": kvm_msr: "))
_RARE = 32
"""A shape that fewer lines have is not worth a look."""


_MARKS = 0x100


@dataclass(slots=True)
class _Thread:
    """What stands before the flags of a line: a thread on a processor.  Three characters from ``first`` on mark its
    lines; ``time``: where the time stands in them."""

    first: int
    time: slice

    @property
    def entry(self) -> str:
        return chr(self.first)

    @property
    def exit(self) -> str:
        return chr(self.first + 1)

    @property
    def msr(self) -> str:
        return chr(self.first + 2)


def round_trips(text: str, lines: Sequence[str]) -> list[range]:
    """Numbers, from 0, of the lines of round trips, in order.  Their thread's entry is the line before each range, and
    its next exit the line behind.

    :param lines: those of ``text``.
    """
    shapes = text.translate(_SHAPE).split("\n")
    if len(shapes) != len(lines) + 1:  # bytes that part lines for Python alone
        return []
    alike: defaultdict[str, list[int]] = defaultdict(list)
    for number, shape in enumerate(shapes):
        alike[shape].append(number)
    marks = ["."] * len(lines)
    threads: dict[str, _Thread] = {}
    for shape, numbers in alike.items():
        if len(numbers) < _RARE or not any(name in shape for name in _NAMES):
            continue
        match = _LINE.fullmatch(lines[numbers[0]])
        columns = _Columns.of([lines[n] for n in numbers])
        if match is None or not columns.well_formed(match):
            continue
        time = slice(*match.span("time"))
        for told in columns.by_head(numbers, match.end("head")):
            # One that is damaged is damaged in the entry before the round trips as well, which is read by itself.
            head = lines[told[0]][: match.end("head")]
            thread = threads.setdefault(head, _Thread(_MARKS + 3 * len(threads), time))
            if thread.time != time:
                continue
            mark = thread.entry if match["entry"] else thread.msr if match["msr"] else thread.exit
            for number in _unheeded(told, lines, match):
                marks[number] = mark
    return list(_ordered("".join(marks), lines, threads.values()))


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

    def by_head(self, numbers: Sequence[int], width: int) -> Collection[Sequence[int]]:
        """The numbers of the lines, those of each head together."""
        parting = [column for at in range(width) if (column := self[at]).count(column[0]) != self.count]
        if not parting:
            return (numbers,)
        parts: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, key in zip(numbers, zip(*parting, strict=True), strict=True):
            parts[key].append(number)
        return parts.values()


def _unheeded(numbers: Sequence[int], lines: Sequence[str], match: re.Match[str]) -> Sequence[int]:
    """Without page faults during which an event was being delivered, and MSRs that somebody looks at."""
    if match["msr"]:
        at = slice(*match.span("msr"))
        return [number for number in numbers if int(lines[number][at], 16) not in HEEDED_MSRS]
    field = _DELIVERS.get(match["reason"] or "")
    if field is None:
        return numbers
    at, none = slice(*match.span(field)), "0" * len(match[field])
    return [number for number in numbers if lines[number][at] == none]


def _ordered(marks: str, lines: Sequence[str], threads: Collection[_Thread]) -> Iterator[range]:
    """The runs whose times never go backwards."""
    times = {thread.entry: thread.time for thread in threads}
    each = (f"(?<={t.entry})(?:{t.exit}{t.msr}?{t.entry})+(?={t.exit})" for t in threads)
    for found in re.finditer("|".join(each), marks) if threads else ():
        begin, end = found.span()
        time = times[marks[begin - 1]]
        stamps = [line[time] for line in lines[begin - 1 : end + 1]]
        if stamps == sorted(stamps):
            yield range(begin, end)
