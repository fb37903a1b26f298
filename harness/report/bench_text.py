# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make bench` measured, as a section of docs/performance.md: a row for each thing, with when and on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEADING = "## What make bench measures"
_HEAD = ("what", "aim", "measured", "when", "machine")


@dataclass(frozen=True, slots=True)
class Measured:
    """One row; all as they are printed.

    :ivar aim: what it should be; empty: nothing is aimed at.
    :ivar when: date and time, the commit, and what else the machine had to do.
    """

    what: str
    aim: str
    measured: str
    when: str
    machine: str

    @property
    def cells(self) -> tuple[str, ...]:
        return (self.what, self.aim, self.measured, self.when, self.machine)


def bench_section(rows: Sequence[Measured]) -> list[str]:
    """Markdown lines, heading included."""
    lines = [HEADING, "", "`make bench` writes this table; `make bench BENCH='judge smoke'` measures some of it anew."]
    lines += ["", _row(_HEAD), _row(["---"] * len(_HEAD))]
    return lines + [_row(row.cells) for row in rows]


def rows_of(page: str) -> list[Measured]:
    """The rows of a page's section; none where it has no such section."""
    _, found, section = page.partition(f"{HEADING}\n")
    if not found:
        return []
    lines = section.partition("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return [Measured(*row) for row in cells[2:] if len(row) == len(_HEAD)]


def merged(old: Sequence[Measured], new: Sequence[Measured]) -> list[Measured]:
    """The old rows, those that were measured again replaced, and what is new at the end."""
    latest = {row.what: row for row in new}
    rows = [latest.pop(row.what, row) for row in old]
    return rows + list(latest.values())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
