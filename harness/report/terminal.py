# SPDX-License-Identifier: GPL-2.0-or-later
"""The terminal: one line that is updated while something goes on, and a table at the end.  A plain log elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

from harness.report.verdict_text import reason_text
from harness.results import Row, RunResult
from harness.status import Status

_COLOUR = {
    Status.PASS: "32",
    Status.FAIL: "31",
    Status.INCONCLUSIVE: "33",
    Status.UNSUPPORTED: "36",
    Status.ERROR: "35",
}
_COLUMNS = ("tokens", "halts", "sync", "mapped")
_LOG_EVERY_S = 10.0
_DRAW_EVERY_S = 0.1


class Screen:
    """Progress and lines on a stream.

    On a terminal progress is one line that overwrites itself; in a log each new kind of work is a line, and work that
    goes on tells so every ten seconds.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self.is_terminal = stream.isatty()
        self._drawn = False
        self._told: dict[str, tuple[str, float]] = {}  # by scope: work goes on in several at once
        self._prefix = ""

    def scope(self, prefix: str) -> None:
        """What all progress from now on belongs to, such as "S23 on debian-6.1"; empty for nothing."""
        self._prefix = f"{prefix}: " if prefix else ""

    def progress(self, what: str, done: float | None = None) -> None:
        """See artifacts.progress.Progress."""
        text = self._prefix + what
        now = self._clock()
        # Numbers advance; the same words with other numbers are the same work.
        work = "".join(c for c in text if not c.isdigit())
        last, told_at = self._told.get(self._prefix, ("", float("-inf")))
        if done is not None:
            text += f" {done * 100:.0f} %"
        if self.is_terminal:
            if work == last and now - told_at < _DRAW_EVERY_S:
                return
            width = shutil.get_terminal_size().columns
            self._stream.write(f"\r\x1b[2K{text[: max(10, width - 1)]}")
            self._drawn = True
        else:
            if work == last and now - told_at < _LOG_EVERY_S:
                return
            self._stream.write(f"{text}\n")
        self._told[self._prefix] = work, now
        self._stream.flush()

    def line(self, text: str = "") -> None:
        """A line that stays."""
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take the progress line away."""
        if self._drawn:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._told.clear()
        self._drawn = False

    def verdict(self, row: Row) -> None:
        """One verdict, as soon as it is there."""
        text = reason_text(row.verdict)
        reason = f"  {text.splitlines()[0]}" if text else ""
        self.line(f"{self.paint(row.status):<12} {row.key} ({row.seconds:.1f} s){reason}")

    def paint(self, status: Status) -> str:
        """The word, in its colour where colours are shown."""
        return f"\x1b[{_COLOUR[status]}m{status.value}\x1b[0m" if self.is_terminal else status.value


def table(result: RunResult) -> list[str]:
    """The end of a run as aligned plain text: a row per planned verdict, then totals, evidence and exit code."""
    by_key = {row.key: row for row in result.rows}
    head = ["scenario", "kernel", "verdict", *_COLUMNS, "seconds"]
    body: list[list[str]] = []
    notes: list[str] = []
    for key in result.planned:
        row = by_key.get(key)
        name = key.scenario if key.repeat == 1 else f"{key.scenario} #{key.repeat}"
        if row is None:
            body.append([name, key.kernel, "missing", *("-" for _ in _COLUMNS), "-"])
            continue
        body.append([name, key.kernel, row.status.value, *(_cell(row, c) for c in _COLUMNS), f"{row.seconds:.1f}"])
        reason = reason_text(row.verdict)
        if reason or row.status is not Status.PASS:
            notes += [f"{key}: {row.status}: {line}" if n == 0 else f"    {line}"
                      for n, line in enumerate(reason.splitlines() or ["no reason given"])]  # fmt: skip
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in [head, *body]]
    lines.insert(1, "  ".join("-" * w for w in widths))
    if notes:
        lines += ["", *notes]
    counted = {s: sum(row.status is s for row in result.rows) for s in Status}
    summary = ", ".join(f"{n} {s.value}" for s, n in counted.items() if n) or "no verdict"
    if result.missing:
        summary += f", {len(result.missing)} of {len(result.planned)} without a verdict"
    lines += ["", f"{summary} in {result.seconds:.0f} s (cells: seen/predicted where the two texts differ)"]
    return lines


def _cell(row: Row, column: str) -> str:
    cell = next((c for c in row.verdict.columns if c.name == column), None)
    if cell is None:
        return "-"
    seen, predicted = "?" if cell.seen is None else str(cell.seen), str(cell.predicted)
    return seen if seen == predicted else f"{seen}/{predicted}"
