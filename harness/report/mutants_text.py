# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of mutants: mutant by scenario, what caught it, and whether that names the fault.

For a terminal, and as a page of the documentation for a kernel whose conditions and effects can all be made wrong.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

_ORDER = ("caught", "caught otherwise", "SURVIVED", "undecided", "not run", "equivalent", "out of reach")
_COLUMNS = 118
_KINDS = 2
"""No fault hangs by one kind of scenario alone."""
MADE_FROM = "Made from {}."
"""In a section: the kernel (BuiltKernel.identity)."""
SCENARIOS = "### The scenarios as they were tried"
"""The heading in a section under which each is told with its digest."""


@dataclass(frozen=True, slots=True)
class MutantLine:
    """One mutant.

    :ivar about: what it does wrong, or where it stands ("virt/kvm/async_pf.c:70").
    :ivar imitates: the bug, or the function.
    :ivar cells: scenario -> verdict and rules.
    :ivar catch: "caught", "caught otherwise", "SURVIVED", "not run", "equivalent", or "out of reach".
    :ivar caught_by: the rules that were broken.
    :ivar kinds: how many kinds of scenarios have caught it by name.
    :ivar alone: why it is not more than one.
    :ivar note: why nobody can notice it; or how what was seen differs from what was expected.
    """

    name: str
    number: int
    about: str
    imitates: str
    cells: tuple[tuple[str, str], ...]
    catch: str
    caught_by: str
    kinds: int = 0
    alone: str = ""
    note: str = ""


def mutants_table(lines: Sequence[MutantLine], control: Sequence[tuple[str, str]]) -> list[str]:
    """Plain text: the unmutated kernel, a line per mutant, then by name what was not caught by a rule that names it."""
    text = ["unmutated kernel: " + (", ".join(f"{s} {verdict}" for s, verdict in control) or "not run"), ""]
    width = min(64, max((len(line.name) for line in lines), default=6))
    for line in lines:
        cells = "  ".join(f"{scenario} {what}" for scenario, what in line.cells) or "no scenario was run"
        text.append(f"{line.number:>4}  {line.name:<{width}}  {line.catch:<16}  {cells}")
        text.append(f"      {'':<{width}}  {line.about} [{line.imitates}]" + (f"  {line.note}" if line.note else ""))
    text += ["", score(lines)]
    for word in ("SURVIVED", "undecided", "caught otherwise", "not run"):
        names = [line.name for line in lines if line.catch == word]
        if names:
            text += [f"{word}:", *(f"    {name}" for name in names)]
    return text


def score(lines: Sequence[MutantLine]) -> str:
    """How many mutants met which fate."""
    counts = Counter(line.catch for line in lines)
    return f"{len(lines)} mutants: " + ", ".join(f"{counts[word]} {word}" for word in _ORDER if counts[word])


def mutants_page(
    title: str,
    command: str,
    lines: Sequence[MutantLine],
    control: Sequence[tuple[str, str]],
    made_from: str = "",
    digests: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Markdown, one section: the score, a table for each function, why some cannot be noticed, which ones only one
    kind of scenario notices, and what was tried, so that it need not be again; of mistakes written by hand one table.

    :param title: heading of the section: the kernel.
    :param command: what makes it.
    :param made_from: what the kernel was made from.
    :param digests: scenario -> what it was like (harness/run/mutants_told.py).
    """
    green = sum(verdict == "PASS" for _, verdict in control)
    others = [f"{scenario} {verdict}" for scenario, verdict in control if verdict != "PASS"]
    caught = [line for line in lines if line.catch == "caught"]
    alone = [line for line in caught if line.kinds < _KINDS]
    by_hand = all(line.name.isidentifier() for line in lines)
    told = f"{score(lines)}."
    if not by_hand:
        told += f" {len(caught) - len(alone)} were caught by name under scenarios of more than one kind,"
        told += f" {len(alone)} under one kind alone."
    told += " The unmutated kernel:"
    told += f" {green} PASS{''.join(f', {other}' for other in others)}."
    made = f" {MADE_FROM.format(made_from)}" if made_from else ""
    text = [f"## {title}", "", *_wrapped(f"Written by `{command}`.{made}"), "", *_wrapped(told)]
    if by_hand:
        text += ["", "| mistake | what is wrong | by scenario, what named it | |", "|---|---|---|---|"]
        return [*text, *(_table_row(f"`{line.name}`", line.about, _cells(line), line.catch) for line in lines)]
    for function, group in groupby(lines, key=lambda line: (line.about.partition(":")[0], line.imitates)):
        mine = list(group)
        count = sum(line.catch == "caught" for line in mine)
        live = sum(line.catch not in ("equivalent", "out of reach") for line in mine)
        text += ["", f"### {function[1]} ({function[0]}): {count} of {live}", ""]
        text += ["| line | made wrong | by scenario, what named it | |", "|---|---|---|---|"]
        text += [_row(line) for line in mine]
    if alone:
        text += ["", "### Caught by one kind of scenario alone", ""]
        text += ["| where | made wrong | why not by another |", "|---|---|---|"]
        text += [_table_row(line.about, f"`{code_of(line.name)}`", line.alone) for line in alone]
    tried = {scenario.removesuffix(" at go") for line in lines for scenario, _ in line.cells}
    if told_of := [f"{scenario} {digest}" for scenario, digest in sorted(digests.items()) if scenario in tried]:
        text += ["", SCENARIOS, "", *_wrapped(f"{', '.join(told_of)}.")]
    return text


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _COLUMNS, break_long_words=False, break_on_hyphens=False)


def _row(line: MutantLine) -> str:
    return _table_row(line.about.rpartition(":")[2], f"`{code_of(line.name)}`", _cells(line), line.catch)


def _cells(line: MutantLine) -> str:
    told = "; ".join(f"{scenario} {verdict}" for scenario, verdict in line.cells)
    if line.catch in ("equivalent", "out of reach"):
        return "; ".join(part for part in (line.note, told) if part)
    return told or line.note or "reached by no scenario"


def code_of(name: str) -> str:
    """What a point makes wrong, without its function, in the middle of which something may be left out."""
    what = name.partition(": ")[2]
    return what if len(what) <= _COLUMNS else f"{what[:72]} ... {what[-40:]}"


def _table_row(*parts: str) -> str:
    return "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"


def table_cells(line: str) -> list[str]:
    """The parts of a row of a table, without the marks of code; empty where a line is none."""
    if not (line.startswith("| ") and line.endswith(" |")):
        return []
    parts = [part.replace("\\|", "|") for part in line[2:-2].split(" | ")]
    return [part[1:-1] if part.startswith("`") and part.endswith("`") else part for part in parts]


def section_of(page: str, title: str) -> list[str]:
    """The lines of a section of a page; empty where there is none of that heading."""
    found = (part.splitlines() for part in _sections(page))
    return next((lines for lines in found if lines[:1] == [f"## {title}"]), [])


def replace_section(page: str, section: Sequence[str]) -> str:
    """A page with one of its "## " sections, known by its heading, replaced, or added at its end."""
    heading = section[0]
    parts = list(_sections(page))
    new = "\n".join(section) + "\n"
    at = next((i for i, part in enumerate(parts) if part.splitlines()[:1] == [heading]), None)
    if at is None:
        return page.rstrip("\n") + "\n\n" + new if page else new
    last = at == len(parts) - 1
    return "".join([*parts[:at], new if last else new + "\n", *parts[at + 1 :]])


def _sections(page: str) -> Iterator[str]:
    """The text before the first "## ", and each section."""
    part: list[str] = []
    for line in page.splitlines(keepends=True):
        if line.startswith("## ") and part:
            yield "".join(part)
            part = []
        part.append(line)
    if part:
        yield "".join(part)
