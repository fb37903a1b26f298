# SPDX-License-Identifier: GPL-2.0-or-later
"""Every section, row, rule, bug, difference and page that the sources cite exists in docs/.

An identifier exists when a page below docs/spec defines it: as a heading (``## B.4 ...``), as the bold head of a list
item (``- **D05** ...``), or as the first cell of a row of the table of page states (``| 10 | ...``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.house.test_house import FILES, ROOT

SPEC = ROOT / "docs/spec"
TOPS = ("harness", "kernels", "guest-images", "docs", "tests")
TEXT = {".py", ".md", ".toml", ".c", ".h", ".S", ".ld", ".config", ".patch"}

_SECTION = re.compile(r"(?<![\w./-])([A-DFH]\.(?:\d|1\d))(?![\w.]\d|\d)")
_LETTER = re.compile(r"behaviour\.md,? (?:end of )?section ([A-Z])\b|behaviour\.md ([A-Z])\b(?!\.)")
_ROW = re.compile(r"A\.8,? rows? (\d+(?:(?:, | and | to |-)\d+)*)")
_QUESTION = re.compile(r"A\.9,? (Q\d+)")
_RULE = re.compile(r"(?<![\w/-])(D\d\d)(?!\w)")
_SCENARIO = re.compile(r"(?<![\w/-])(S\d{2,3}[A-Z]?)(?!\w)")
_FAMILY = re.compile(r"[Cc]atalogue (E\d)\b|(?<![\w/-])(E[1-5])(?= enablement| fault resolution)")
_FINDING = re.compile(r"[Ff]indings? (F\d)\b")
# R12 is a register in assembly: these letters count in prose only.  N61 names a kernel (behaviour.md).
_BUG = re.compile(r"(?<![\w/-])(R\d{1,2}|N(?!61\b)\d{1,2})(?!\w)")
_DIFFERENCE = re.compile(r"(?<![\w/-])(X\d{1,2})(?!\w)")
_PAGE = re.compile(
    r"(?<![\w/.-])((?:docs/)?(?:[\w-]+/)*[\w-]+\.md)(?:[,:]? sections? (\d+)(?:(?: to |, | and |-)(\d+))?)?"
)


def texts() -> list[Path]:
    """The files that may cite: sources and documents, no recorded evidence."""
    return [f for f in FILES if f.parts[0] in TOPS and f.parts[:2] != ("tests", "data") and f.suffix in TEXT]


@cache
def defined() -> frozenset[str]:
    """All identifiers that docs/spec defines; rows of A.8 as "row 10"."""
    found: set[str] = set()
    for page in sorted(SPEC.rglob("*.md")):
        for line in page.read_text().splitlines():
            heading = re.match(r"#+ ([A-H](?:\.\d+|\d)?)[. ]", line)
            item = re.match(r"\s*- \*\*([A-Z]{1,2}\d+[a-z]?)\*\*", line)
            row = re.match(r"\| (\d+) \|", line) if page.name == "page-states.md" else None
            found.update(m[1] for m in (heading, item) if m)
            if row:
                found.add(f"row {row[1]}")
    return frozenset(found)


@cache
def scenario_names() -> frozenset[str]:
    return frozenset(path.stem for path in (ROOT / "tests/scenarios").glob("*.toml"))


def rows(text: str) -> Iterator[str]:
    """The rows of "8, 9 and 14" or "39 to 41"."""
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    if " to " in text or "-" in text:
        numbers = [*numbers[:-2], *range(numbers[-2], numbers[-1] + 1)]
    yield from (f"row {n}" for n in numbers)


def cited(path: Path, text: str) -> Iterator[str]:
    """The identifiers that one file cites."""
    for pattern in (_SECTION, _QUESTION, _LETTER, _FAMILY, _FINDING):
        for found in pattern.finditer(text):
            yield next(g for g in found.groups() if g)
    for found in _ROW.finditer(text):
        yield from rows(found[1])
    if path.parts[0] == "tests":
        return  # they may name rules and scenarios that do not exist, on purpose
    for found in _RULE.finditer(text):
        yield found[1]
    for found in _SCENARIO.finditer(text):
        if found[1] not in scenario_names():
            yield found[1]
    if path.suffix == ".md" or path.name == "MUTANTS.toml":
        for found in _BUG.finditer(text):
            yield found[1]
    if path.suffix in {".md", ".py"}:
        for found in _DIFFERENCE.finditer(text):
            yield found[1]


def test_the_specification_defines_what_it_promises() -> None:
    """Complete families, so that a rule of the tests below cannot hold because nothing is defined."""
    assert {f"D{n:02}" for n in range(1, 45)} <= defined()
    assert {f"row {n}" for n in range(1, 46)} <= defined()
    assert {f"R{n}" for n in range(1, 31)} | {f"N{n}" for n in range(1, 17)} <= defined()
    assert {f"X{n}" for n in range(1, 16)} | {f"E{n}" for n in range(1, 6)} <= defined()
    assert {f"A.{n}" for n in range(11)} | {f"B.{n}" for n in range(1, 20)} <= defined()


def test_each_section_is_defined_once() -> None:
    heads = [
        match[1]
        for page in sorted(SPEC.rglob("*.md"))
        for match in re.finditer(r"^#+ ([A-H]\.\d+) ", page.read_text(), re.MULTILINE)
    ]
    assert sorted(heads) == sorted(set(heads))


def test_identifiers_resolve() -> None:
    missing = [
        f"{path} cites {name}"
        for path in texts()
        for name in sorted(set(cited(path, (ROOT / path).read_text(errors="replace"))))
        if name not in defined()
    ]
    assert not missing, "no page below docs/spec defines:\n" + "\n".join(missing)


@cache
def documents() -> tuple[Path, ...]:
    return tuple((ROOT / "docs").rglob("*.md"))


def pages_named(name: str, citing: Path) -> list[Path]:
    """The documents that a mention can mean: beside the citing page, from the top, or any below docs with that name."""
    beside = ((ROOT / citing).parent / name).resolve()
    places = [beside, ROOT / name, *(page for page in documents() if page.name == Path(name).name)]
    return [p for p in places if p.is_file() and p.as_posix().endswith("/" + name.lstrip("./"))]


def wrong_pages(path: Path, text: str) -> Iterator[str]:
    """Mentions of pages that do not exist, or lack the section."""
    for found in _PAGE.finditer(text):
        pages = pages_named(found[1], path)
        if not pages:
            yield f"{path} names {found[1]}, which does not exist"
        elif found[2]:
            heads = re.findall(r"^## (\d+)\. ", pages[0].read_text(), re.MULTILINE)
            wanted = range(int(found[2]), int(found[3] or found[2]) + 1)
            if not {str(n) for n in wanted} <= set(heads):
                yield f"{path}: {found[0]}: no such section"


def test_pages_and_their_sections_resolve() -> None:
    wrong = [line for path in texts() for line in wrong_pages(path, (ROOT / path).read_text(errors="replace"))]
    assert not wrong, "\n".join(wrong)


MARKDOWN = [f for f in FILES if f.suffix == ".md" and f.parts[:2] != ("tests", "data")]


def test_links_resolve() -> None:
    dead = [
        f"{path} links to {target}"
        for path in MARKDOWN
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / path).read_text())
        if "://" not in target and not ((ROOT / path).parent / target).exists()
    ]
    assert not dead, "\n".join(dead)


_CODE = re.compile(r"`((?:harness|kernels|guest-images|tests)/[\w/.-]+?)(?::(\w+))?`")


def test_files_and_names_that_the_documents_mention_exist() -> None:
    wrong = []
    for path in MARKDOWN:
        for name, word in _CODE.findall((ROOT / path).read_text()):
            target = ROOT / name
            if not target.exists():
                wrong.append(f"{path} names {name}, which does not exist")
            elif word and not re.search(rf"\b{word}\b", target.read_text()):
                wrong.append(f"{path}: {name} has no {word}")
    assert not wrong, "\n".join(wrong)


def long_lines(path: Path) -> Iterator[str]:
    """Lines of more than 120 columns; rows of tables and code blocks cannot be wrapped."""
    code = False
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        code ^= line.lstrip().startswith("```")
        if not code and not line.lstrip().startswith("|") and len(line) > 120:
            yield f"{path}:{number} has {len(line)} columns"


def test_prose_is_wrapped() -> None:
    long = [line for path in MARKDOWN if path.parts[:2] != ("docs", "adr") for line in long_lines(path)]
    assert not long, "\n".join(long)


def test_each_page_can_be_found() -> None:
    """Each page below docs is linked from another page."""
    linked = {
        ((ROOT / path).parent / target).resolve()
        for path in MARKDOWN
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / path).read_text())
    }
    lost = [page for page in documents() if page not in linked and page.parent.name != "adr"]
    assert not lost, f"no page links to {lost}"


def test_each_row_of_the_catalogue_stands_once() -> None:
    pages = (SPEC / "scenarios").glob("*.md")
    rows = Counter(row for page in pages for row in re.findall(r"^- \*\*(S\d+\w*)\*\*", page.read_text(), re.M))
    assert len(rows) > 100 and [row for row, times in rows.items() if times > 1] == []


def test_each_test_that_a_page_names_exists() -> None:
    """As `judge/test_align.py::test_x`, below tests/unit; one that follows without a file is of the same file."""
    lost = []
    for path in MARKDOWN:
        file = ""
        for found in re.finditer(r"`(?:([\w/]+\.py)::)?(test_\w+)`", (ROOT / path).read_text()):
            file = found[1] or file
            code = ROOT / "tests/unit" / file
            if not file or not code.is_file() or f"def {found[2]}(" not in code.read_text():
                lost.append(f"{path}: {file}::{found[2]}")
    assert not lost, "\n".join(lost)
