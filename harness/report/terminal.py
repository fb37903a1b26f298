# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command prints while it works and at its end: live lines and a table on a terminal, a plain log elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from harness.report.live_lines import LiveLines
from harness.report.unheard import tell_nobody
from harness.report.verdict_text import reason_text
from harness.results import Row, RunResult
from harness.status import Status

_STYLE = {
    Status.PASS: "green",
    Status.FINDING: "bold yellow",
    Status.FAIL: "bold red",
    Status.INCONCLUSIVE: "yellow",
    Status.UNSUPPORTED: "cyan",
    Status.ERROR: "magenta",
}
_COLUMNS = ("tokens", "halts", "sync", "mapped")
_HEAD = ("scenario", "kernel", "verdict", *_COLUMNS, "seconds")
_LOG_EVERY_S = 10.0
_DRAW_EVERY_S = 0.1


def is_drawable(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether lines can be redrawn and coloured: a terminal that can, and a person that has not said no.

    NO_COLOR (no-color.org: present and not empty) and TERM=dumb make it a log.
    """
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM", "") not in ("dumb", "unknown")


class Screen:
    """Progress and lines on a stream.

    On a terminal each scope has a line that is redrawn in place; in a log each new kind of work is a line, and work
    that goes on tells so every ten seconds.

    Nothing here ends what it tells of: when the reader goes away (a pager, `head`, `tee`), or the log cannot be
    written, no more is told, and the work goes on.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self.is_terminal = is_drawable(stream, environ)
        self._live = LiveLines(stream) if self.is_terminal else None
        self._told: dict[str, tuple[str, float]] = {}  # by scope: work goes on in several at once
        self._scope = ""
        self._is_heard = True

    def scope(self, prefix: str) -> None:
        """What all progress from now on belongs to, such as "S23 on debian-6.1"; empty for nothing."""
        self._scope = prefix

    def progress(self, what: str, done: float | None = None) -> None:
        """See harness.progress.Progress."""
        now = self._clock()
        # Numbers advance; the same words with other numbers are the same work.
        work = "".join(c for c in what if not c.isdigit())
        last, told_at = self._told.get(self._scope, ("", float("-inf")))
        if work == last and now - told_at < (_DRAW_EVERY_S if self._live is not None else _LOG_EVERY_S):
            return
        self._told[self._scope] = work, now
        live = self._live
        if live is not None:
            self._tell(lambda: live.show(self._scope, what, done))
            return
        share = f" {done * 100:.0f} %" if done is not None else ""
        prefix = f"{self._scope}: " if self._scope else ""
        self._write(f"{prefix}{what}{share}")

    def line(self, text: str = "") -> None:
        """A line that stays."""
        live = self._live
        if live is not None:
            self._tell(lambda: live.print(Text(text)))
        else:
            self._write(text)

    def _write(self, text: str) -> None:
        def write() -> None:
            self._stream.write(f"{text}\n")
            self._stream.flush()

        self._tell(write)

    def _tell(self, write: Callable[[], None]) -> None:
        """Write something, unless a write has failed before."""
        if not self._is_heard:
            return
        try:
            write()
        except OSError as exc:
            self._is_heard = False
            tell_nobody(self._stream)
            if not isinstance(exc, BrokenPipeError):
                with contextlib.suppress(OSError):
                    print(f"apf: no more is told here: {exc.strerror or exc}", file=sys.stderr)

    def clear(self) -> None:
        """Take the lines of work away: all has ended."""
        self._told.clear()
        if self._live is not None:
            self._tell(self._live.clear)

    def verdict(self, row: Row) -> None:
        """One verdict, as soon as it is there."""
        text = reason_text(row.verdict)
        reason = f"  {text.splitlines()[0]}" if text else ""
        rest = f" {row.key} ({row.seconds:.1f} s){reason}"
        live = self._live
        if live is None:
            self._write(f"{row.verdict.word:<12}{rest}")
            return
        self._tell(lambda: live.drop(str(row.key)))
        self._tell(lambda: live.print(Text.assemble((f"{row.verdict.word:<12}", _STYLE[row.status]), rest)))

    def table(self, result: RunResult) -> None:
        """The end of a run: a row for each planned verdict, then the reasons and the sums."""
        live = self._live
        if live is None:
            for text in table(result):
                self._write(text)
            return
        self.clear()
        drawn = Table(*_HEAD, box=box.SIMPLE_HEAD, pad_edge=False)
        for cells in _body(result):
            style = next((_STYLE[s] for s in Status if s.value == cells[2].split()[0]), "bold red")
            drawn.add_row(*(Text(c, style=style if i == 2 else "") for i, c in enumerate(cells)))
        self._tell(lambda: live.print(drawn))
        for text in _notes(result):
            self.line(text)


def table(result: RunResult) -> list[str]:
    """The end of a run as aligned plain text: a row per planned verdict, then reasons and sums."""
    rows: list[list[str]] = [list(_HEAD), *_body(result)]
    widths = [max(len(line[i]) for line in rows) for i in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in rows]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return lines + _notes(result)


def _body(result: RunResult) -> list[list[str]]:
    by_key = {row.key: row for row in result.rows}
    body: list[list[str]] = []
    for key in result.planned:
        row = by_key.get(key)
        name = key.scenario if key.repeat == 1 else f"{key.scenario} #{key.repeat}"
        if row is None:
            body.append([name, key.kernel, "missing", *("-" for _ in _COLUMNS), "-"])
        else:
            body.append([name, key.kernel, row.verdict.word, *(_cell(row, c) for c in _COLUMNS), f"{row.seconds:.1f}"])
    return body


def _notes(result: RunResult) -> list[str]:
    """Why rows are as they are, then the sums."""
    by_key = {row.key: row for row in result.rows}
    notes: list[str] = []
    for key in result.planned:
        row = by_key.get(key)
        reason = reason_text(row.verdict) if row is not None else ""
        if row is not None and (reason or row.status is not Status.PASS):
            notes += [f"{key}: {_word(result, row)}: {line}" if n == 0 else f"    {line}"
                      for n, line in enumerate(reason.splitlines() or ["no reason given"])]  # fmt: skip
    counted = {s: sum(row.status is s for row in result.rows) for s in Status}
    summary = ", ".join(f"{n} {s.value}" for s, n in counted.items() if n) or "no verdict"
    if result.missing:
        summary += f", {len(result.missing)} of {len(result.planned)} without a verdict"
    if result.refused:
        summary += f", {len(result.refused)} scenario file{'s' if len(result.refused) > 1 else ''} refused"
    summary += f" in {result.seconds:.0f} s (cells: seen/predicted where the two texts differ)"
    notes += result.to_retire
    notes += result.troubles
    notes += [f"refused: {line}" for told in result.refused for line in told.splitlines()]
    return [*(["", *notes] if notes else []), "", summary]


def _word(result: RunResult, row: Row) -> str:
    return row.verdict.word + (" (accepted)" if row.status is Status.FINDING and result.is_green(row) else "")


def _cell(row: Row, column: str) -> str:
    cell = next((c for c in row.verdict.columns if c.name == column), None)
    if cell is None:
        return "-"
    seen, predicted = "?" if cell.seen is None else str(cell.seen), str(cell.predicted)
    return seen if seen == predicted else f"{seen}/{predicted}"
