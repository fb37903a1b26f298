# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix of scenarios and kernels as a section of a Markdown page, with what changed from kernel to kernel."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.judge.verdict_types import Verdict
from harness.model.kernels import KernelModel, changes_between
from harness.report.verdict_text import reason_text
from harness.status import Status

BEGIN = "<!-- written by apf matrix: from here -->"
END = "<!-- written by apf matrix: to here -->"
_WIDTH = 118
_LETTERS = {"tokens": "T", "halts": "H", "sync": "S", "mapped": "M"}
_WORDS = {Status.FAIL: "**FAIL**", Status.INCONCLUSIVE: "**?**", Status.UNSUPPORTED: "n/a", Status.ERROR: "**error**"}


@dataclass(frozen=True, slots=True)
class Column:
    """One kernel: ``uname`` as uname -r says, ``made_from`` its package, ``runs`` the folders of its runs."""

    name: str
    uname: str
    made_from: str
    model: KernelModel | None
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A verdict, and the folder of its evidence below that of the results."""

    verdict: Verdict
    where: str


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One scenario; a cell for each kernel, None where there is no verdict."""

    scenario: str
    title: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True)
class KernelStep:
    """From one kernel to the next: the fields of the model that differ, each with the scenarios that show it."""

    older: str
    newer: str
    shown: Mapping[str, tuple[str, ...]]


def matrix_text(columns: Sequence[Column], rows: Sequence[MatrixRow], steps: Sequence[KernelStep]) -> str:
    """The section, between its two marks."""
    parts = [BEGIN, "", *_legend(), "", *_kernels(columns), "", *_table(columns, rows), ""]
    parts += _not_green(columns, rows)
    parts += _changes(columns, rows, steps)
    return "\n".join([*parts, END]) + "\n"


def put_section(page: str, section: str) -> str:
    """The page with this section in the place of the one that it has, or at its end."""
    if BEGIN in page and END in page:
        before, _, rest = page.partition(BEGIN)
        return before + section.rstrip("\n") + rest.partition(END)[2]
    return (page.rstrip("\n") + "\n\n## Matrix\n\n" if page else "# Kernels and scenarios\n\n") + section


def _legend() -> list[str]:
    text = (
        "A row is a scenario, a column a kernel. A cell counts the guest's accesses by their outcome as it was seen: "
        "T token, H halt, S the vCPU thread waited, M the page was there; `ok`: nothing to count; F1: it shows that "
        "known fault (docs/findings.md). All of that agrees with the model of that kernel; what does not is FAIL, "
        "explained below. n/a: a host with this kernel cannot do it; empty: not performed. A cell in bold differs from "
        "the one to its left."
    )
    return textwrap.wrap(text, _WIDTH)


def _kernels(columns: Sequence[Column]) -> list[str]:
    lines = ["| kernel | release | made from | model | run |", "|---|---|---|---|---|"]
    for column in columns:
        model = f"{column.model.name} as of {column.model.version}" if column.model else "none"
        runs = ", ".join(column.runs) or "not run"
        lines.append(f"| {column.name} | {column.uname} | {column.made_from} | {model} | {runs} |")
    return lines


def _table(columns: Sequence[Column], rows: Sequence[MatrixRow]) -> list[str]:
    lines = ["| scenario | " + " | ".join(column.name.removeprefix("debian-") for column in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for row in rows:
        words = [_cell(cell) for cell in row.cells]
        shown = [_bold(word) if n and words[n - 1] not in ("", word) else word for n, word in enumerate(words)]
        lines.append(f"| {row.scenario} {row.title} | " + " | ".join(shown) + " |")
    return lines


def _bold(word: str) -> str:
    return word if word.startswith("**") or word in ("", "n/a") else f"**{word}**"


def _cell(cell: Cell | None) -> str:
    """What was seen, in a few letters."""
    if cell is None:
        return ""
    if not cell.verdict.status.as_predicted:
        return _WORDS[cell.verdict.status]
    counted = {row.name: row.seen for row in cell.verdict.columns}
    counts = [f"{letter}{counted[name]}" for name, letter in _LETTERS.items() if counted.get(name)]
    return " ".join([*counts, *cell.verdict.shown_faults]) or "ok"


def _not_green(columns: Sequence[Column], rows: Sequence[MatrixRow]) -> list[str]:
    """Why cells are not PASS: a line for each scenario and reason, with the kernels."""
    lines = []
    for row in rows:
        reasons: dict[tuple[Status, str], list[str]] = {}
        for column, cell in zip(columns, row.cells, strict=True):
            if cell is not None and not cell.verdict.status.as_predicted:
                reason = (reason_text(cell.verdict).splitlines() or ["no reason given"])[0]
                reasons.setdefault((cell.verdict.status, reason), []).append(column.name)
        for (status, reason), names in reasons.items():
            lines += _item(f"{row.scenario} on {', '.join(names)}: {status}: {reason}")
    return ["### What is not green, and why", "", *lines, ""] if lines else []


def _changes(columns: Sequence[Column], rows: Sequence[MatrixRow], steps: Sequence[KernelStep]) -> list[str]:
    lines = ["### What changed, in which release, and where it was seen", ""]
    place = {column.name: n for n, column in enumerate(columns)}
    for step in steps:
        lines.append(f"From {step.older} to {step.newer}:")
        lines.append("")
        if not step.shown:
            lines.append("- nothing that the model knows")
        for field, scenarios in step.shown.items():
            seen = [text for row in rows if row.scenario in scenarios for text in _seen(row, place, step)]
            if seen:
                where = "seen in " + ", ".join(seen)
            elif scenarios:
                where = f"not in what accesses come to, but in events and totals of {', '.join(scenarios)}"
            else:
                where = "no scenario shows it"
            lines += _item(f"`{field}`: {_history(field, step, columns)}; {where}")
        lines.append("")
    return lines


def _seen(row: MatrixRow, place: Mapping[str, int], step: KernelStep) -> Iterator[str]:
    """ "S23 (S24, then T24)", when both sides were run and differ in what is counted."""
    a, b = row.cells[place[step.older]], row.cells[place[step.newer]]
    if a is not None and b is not None and a.verdict.status.as_predicted and b.verdict.status.as_predicted:
        first, second = _cell(a), _cell(b)
        if first != second:
            yield f"{row.scenario} ({first}, then {second})"


def _history(field: str, step: KernelStep, columns: Sequence[Column]) -> str:
    """The releases that changed this field between the two kernels, and how that is known."""
    models = {column.name: column.model for column in columns}
    a, b = models[step.older], models[step.newer]
    assert a is not None and b is not None
    found = changes_between(a, b, field)
    if not found:
        return f"{getattr(a, field)}, then {getattr(b, field)}"
    return "; ".join(
        f"{'.'.join(str(n) for n in c.since)}, {c.function}"
        + (f', "{c.commit}"' if c.commit and not c.commit.startswith("series") else f", {c.commit}" if c.commit else "")
        for c in found
    )


def _item(text: str) -> list[str]:
    return textwrap.wrap(f"- {text}", _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
