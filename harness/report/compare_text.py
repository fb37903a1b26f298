# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparisons of two kernels as text: long for a folder, at most forty lines for a mailing list, JSON for machines."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any, assert_never

from harness.judge.comparison import (
    Comparison,
    Difference,
    OutcomeDifference,
    ReaderDifference,
    TotalDifference,
    known_seen,
)
from harness.judge.verdict_types import reader_words
from harness.report.ranges import ranges
from harness.status import Status

MAIL_LINES = 40
_WIDTH = 76


def full_text(a: str, b: str, comparisons: Sequence[Comparison]) -> str:
    """Everything: per scenario what differs and whether the models say so, then the known differences."""
    lines = [f"{a} (A) against {b} (B): {len(comparisons)} scenarios", ""]
    for c in comparisons:
        lines.append(f"{c.scenario}  {c.title}")
        lines.append(f"    A {c.a.word} by {c.a.model}, B {c.b.word} by {c.b.model}")
        for side, verdict in (("A", c.a), ("B", c.b)):
            if verdict.status is not Status.PASS:
                lines.append(f"    {side}: {verdict.reason}")
        lines += [f"    {difference_text(d)}" for d in c.differences]
        lines.append(f"    vCPU thread blocked: A {_ms(c.blocked_ns[0])} ms, B {_ms(c.blocked_ns[1])} ms")
        if not c.differences:
            lines.append("    no difference")
        lines.append("")
    lines += known_text(comparisons)
    return "\n".join(lines).rstrip() + "\n"


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.1f}"


def _cells(d: Difference) -> tuple[str, str, str, tuple[int, ...]]:
    """(what, A, B, items) of a difference."""
    match d:
        case OutcomeDifference():
            return "outcome", ", ".join(d.a), ", ".join(d.b), d.items
        case ReaderDifference():
            return "read issued by", reader_words(d.a), reader_words(d.b), d.items
        case TotalDifference():
            return d.name, str(d.a), str(d.b), ()


def difference_text(d: Difference) -> str:
    """One line: what differs, on which items, and whether the models say so."""
    what, a, b, items = _cells(d)
    where = f" of item{'s' if len(items) > 1 else ''} {ranges(items)}" if items else ""
    return f"{what}{where}: A {a}, B {b}{'  (as the models say)' if d.expected else '  <-- NO MODEL SAYS SO'}"


def known_text(comparisons: Sequence[Comparison]) -> list[str]:
    """The known differences between noio and nowait that were seen here, and where; nothing for other variants."""
    known_here = known_seen(comparisons)
    if not known_here:
        return []
    seen = [(known, where) for known, where in known_here if where]
    if not seen:
        return ["none of the known differences between noio and nowait was seen"]
    lines = ["known differences between noio and nowait that were observed:"]
    lines += [f"  {known.id:<4} {known.sentence}: {', '.join(where)}" for known, where in seen]
    return lines


def mail_text(a: str, b: str, comparisons: Sequence[Comparison], header: Sequence[str] = ()) -> str:
    """At most forty lines of at most 76 columns, plain text."""
    lines = [line for text in (*header, f"A: {a}", f"B: {b}") for line in _wrap(text)] + [""]
    lines.append(f"{'scenario':<14} {'A':<5} {'B':<5} {'tokens':>9} {'halts':>9} {'repeats':>9} {'blocked ms':>13}")
    rows = sorted(comparisons, key=lambda c: (c.green, not c.differs))
    for c in rows:
        counts = " ".join(f"{_pair(c, name):>9}" for name in ("NPt", "NPh", "REP"))
        blocked = f"{c.blocked_ns[0] / 1e6:>6.0f}/{c.blocked_ns[1] / 1e6:<6.0f}"
        lines.append(
            f"{c.scenario[:14]:<14} {_short(c.a.status):<5} {_short(c.b.status):<5} {counts} {blocked}".rstrip()
        )
    notes: list[str] = []
    for c in rows:
        for side, verdict in (("A", c.a), ("B", c.b)):
            if verdict.status is not Status.PASS:
                # The reason of a known fault begins with its name, which the word has already.
                reason = verdict.reason.removeprefix(f"{verdict.word.removeprefix('FINDING ')}: ")
                notes += _wrap(f"{c.scenario} {side}: {verdict.word}: {reason}")
        notes += [
            line for d in c.differences if not d.expected for line in _wrap(f"{c.scenario}: {difference_text(d)}")
        ]
    changed = sum(1 for c in comparisons if c.differs)
    bad = sum(1 for c in comparisons if not c.green)
    end = ["", *_wrap(f"{len(comparisons)} scenarios, {changed} behave differently, {bad} not as the models say.")]
    room = MAIL_LINES - len(end)
    body = lines + (["", *notes] if notes else [])
    if len(body) > room:
        body = [*body[: room - 1], f"... {len(body) - room + 1} more lines in the full report"]
    return "\n".join(line.rstrip() for line in [*body, *end]) + "\n"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="    ", break_long_words=False) or [""]


def _short(status: Status) -> str:
    match status:
        case Status.PASS:
            return "ok"
        case Status.FINDING:
            return "known"
        case Status.FAIL:
            return "FAIL"
        case Status.INCONCLUSIVE:
            return "?"
        case Status.UNSUPPORTED:
            return "n/a"
        case Status.ERROR:
            return "ERR"
        case _:
            assert_never(status)


def _pair(c: Comparison, name: str) -> str:
    a, b = ("-" if n is None else str(n) for n in (c.a.total(name), c.b.total(name)))
    return a if a == b else f"{a}/{b}"


def compare_json(a: str, b: str, comparisons: Sequence[Comparison]) -> str:
    """compare.json."""
    return json.dumps(
        {
            "format": 1,
            "a": a,
            "b": b,
            "scenarios": [
                {
                    "scenario": c.scenario,
                    "a": c.a.status.value,
                    "b": c.b.status.value,
                    "green": c.green,
                    "blocked_ms": [round(ns / 1e6, 1) for ns in c.blocked_ns],
                    "differences": [_difference_json(d) for d in c.differences],
                }
                for c in comparisons
            ],
            "known": {known.id: list(where) for known, where in known_seen(comparisons)},
        },
        indent=1,
    )


def _difference_json(d: Difference) -> dict[str, Any]:
    what, a, b, items = _cells(d)
    return {"what": what, "a": a, "b": b, "expected": d.expected, "items": list(items)}
