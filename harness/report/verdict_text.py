# SPDX-License-Identifier: GPL-2.0-or-later
"""One verdict for people: what diverged first and where, then every item and every total."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.judge.verdict_types import ItemRow, TimelineRow, Verdict, outcome_words, thread_words, touch_words

_MANY = 40


def reason_text(verdict: Verdict) -> str:
    """Why the verdict is as it is, and which attempts it took; empty for a plain PASS.  May have several lines."""
    again = [f"second attempt; the first host fell silent: {why}" for why in verdict.retries]
    return "\n".join(filter(None, (verdict.reason, *again)))


def verdict_text(verdict: Verdict) -> str:
    """verdict.txt below its first lines; docs/reading-verdicts.md explains the sections."""
    parts: list[str] = [verdict.log] if verdict.log else []
    if verdict.findings:
        lines = [
            f"{n}. {f.rule}{f' item {f.item}' if f.item >= 0 else ''}"
            f"{f' (trace/events.txt:{f.line})' if f.line else ''}: {f.message}"
            for n, f in enumerate(verdict.findings, 1)
        ]
        parts.append(_section("what diverged, first divergence first", _limit(lines)))
    if verdict.timeline:
        parts.append(_section("the trace around the first divergence", map(_event, verdict.timeline)))
    if verdict.items:
        rows: list[tuple[str, ...]] = [("item", "what", "predicted", "seen", "read by", "blocked ms", "")]
        rows += [_item(row) for row in verdict.items]
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
        parts.append(_section("rules that could not be checked", [f"{u.rule}: {u.why}" for u in verdict.unchecked]))
    if verdict.notes:
        parts.append(_section("notes of the model", verdict.notes))
    return "\n\n".join(parts)


def _item(row: ItemRow) -> tuple[str, ...]:
    predicted = "/".join(row.predicted) + (f" +{row.repeats} repeated" if row.repeats.high else "")
    return (
        str(row.index),
        touch_words(row),
        predicted,
        outcome_words(row.seen),
        row.reader.value,
        f"{row.blocked_ns / 1e6:.1f}",
        "" if row.ok else f"<-- {row.why}",
    )


def _event(row: TimelineRow) -> str:
    who = thread_words(row.vcpu, row.worker, row.tid)
    return f"{'>' if row.marked else ' '} {row.t_ns / 1e9:14.6f} {who:<10} {row.text}"


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
