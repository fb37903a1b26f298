# SPDX-License-Identifier: GPL-2.0-or-later
"""One verdict for people: what diverged first and where, then every item and every total."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.judge.verdict import Verdict

_MANY = 40


def verdict_text(verdict: Verdict) -> str:
    """verdict.txt below its first lines; docs/reading-verdicts.md explains the sections."""
    parts: list[str] = []
    if verdict.findings:
        lines = [
            f"{n}. {f.rule}{f' item {f.item}' if f.item >= 0 else ''}"
            f"{f' (trace/events.txt:{f.line})' if f.line else ''}: {f.message}"
            for n, f in enumerate(verdict.findings, 1)
        ]
        parts.append(_section("what diverged, first divergence first", _limit(lines)))
    if verdict.timeline:
        parts.append(_section("the trace around the first divergence", verdict.timeline))
    if verdict.items:
        rows = [("item", "what", "predicted", "seen", "read by", "blocked ms", "")]
        for i in verdict.items:
            note = "" if i.ok else f"<-- {i.why}"
            rows.append((str(i.index), i.what, i.predicted, i.seen, i.issuer, f"{i.blocked_ms:.1f}", note))
        parts.append(_section("items", columns(rows)))
    if verdict.totals:
        sums = [("total", "predicted", "seen", "")]
        for t in verdict.totals:
            seen = "-" if t.seen is None else str(t.seen)
            sums.append((t.name, str(t.predicted), seen, _note(t.ok, t.predicted.reason)))
        parts.append(_section("totals", columns(sums)))
    if verdict.hints:
        parts.append(_section("worth a look (no failure)", [f"{f.rule}: {f.message}" for f in verdict.hints]))
    if verdict.unchecked:
        parts.append(_section("rules that could not be checked", [f"{rule}: {why}" for rule, why in verdict.unchecked]))
    if verdict.notes:
        parts.append(_section("notes of the model", verdict.notes))
    return "\n\n".join(parts)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as aligned lines."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _note(ok: bool, reason: str) -> str:
    return " ".join(filter(None, ("" if ok else "<--", reason)))


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"== {title}", *lines])


def _limit(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _MANY
    return [*lines[:_MANY], *([f"... and {more} more"] if more > 0 else [])]
