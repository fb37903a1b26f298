# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/glossary.md explains every name that a prediction, a verdict or a table can print."""

from __future__ import annotations

import dataclasses
import re

import pytest

from harness.contract import capture
from harness.evidence import counter_deltas
from harness.model.events import Kind
from harness.model.kernel_changes import CHANGES
from harness.model.outcomes import Outcome
from harness.model.protocol.rules import RULES
from harness.model.simulation.world import TOTALS
from harness.status import Status
from tests.house.test_house import ROOT

GLOSSARY = (ROOT / "docs/glossary.md").read_text()
COUNTERS = (*counter_deltas._VMSTAT, *counter_deltas._MEMCG, *counter_deltas._KVM)


def explained() -> set[str]:
    """The words in first cells of the tables: one, or several with commas; also "X1 to X15"."""
    found: set[str] = set()
    for cell in re.findall(r"^\| ([^|]+?) \|", GLOSSARY, re.MULTILINE):
        for name in cell.split(", "):
            first = re.fullmatch(r"([A-Z])(\d+) to \1(\d+)", name)
            if first:
                width = len(first[2]) if first[2].startswith("0") else 1
                found |= {f"{first[1]}{n:0{width}}" for n in range(int(first[2]), int(first[3]) + 1)}
            found.add(name.strip("`"))
    return found


@pytest.mark.parametrize("name", sorted({*TOTALS, "PGMAJ_HOST", "PGMAJ_REST", *COUNTERS}))
def test_each_total_is_explained(name: str) -> None:
    assert name in explained(), f"{name} can stand in a table and docs/glossary.md does not say what it is"


@pytest.mark.parametrize("name", [*Outcome, *Status])
def test_each_outcome_and_status_is_explained(name: str) -> None:
    assert name in explained()


@pytest.mark.parametrize("name", [kind.name for kind in Kind])
def test_each_event_is_explained(name: str) -> None:
    assert name in explained()


def test_nothing_is_explained_twice() -> None:
    cells = re.findall(r"^\| ([^|]+?) \|", GLOSSARY, re.MULTILINE)
    heads = [c for c in cells if c not in ("name", "word") and not c.startswith("---")]
    assert sorted(heads) == sorted(set(heads))


def test_the_history_of_kernels_is_told_as_it_is_known() -> None:
    page = (ROOT / "docs/kernels.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d., ]*)\|", page, re.MULTILINE)
    known = [(c.field, dotted(c.since), ", ".join(dotted(level) for level in c.backports)) for c in CHANGES]
    assert [(field, since, also.strip()) for field, since, also in told] == known


def dotted(release: tuple[int, ...]) -> str:
    return ".".join(str(n) for n in release)


@pytest.mark.parametrize(
    "record",
    [
        capture.RunEnd,
        capture.HostFacts,
        capture.RunFacts,
        capture.PageProof,
        capture.OutsidePage,
        capture.Precondition,
        capture.PageLeft,
        capture.FinalState,
        capture.ThreadFaults,
        capture.CounterSnapshot,
        capture.GateRead,
        capture.GateLog,
    ],
)
def test_each_key_of_the_capture_is_told(record: type) -> None:
    page = (ROOT / "docs/formats/capture.md").read_text()
    untold = [f.name for f in dataclasses.fields(record) if not re.search(rf"[`\"]{f.name}[`\"]", page)]
    assert not untold


def test_the_documents_name_the_last_rule_and_the_last_scenario() -> None:
    numbers = [re.match(r"S(\d+)", path.stem) for path in (ROOT / "tests/scenarios").glob("S*.toml")]
    last = {"D": max(int(name[1:]) for name in RULES), "S": max(int(found[1]) for found in numbers if found)}
    named = {
        (path.name, letter, int(number))
        for path in (ROOT / "docs").rglob("*.md")
        if path.parent.name != "scenarios"  # whose groups are ranges, too
        for letter, number in re.findall(r"\b([DS])01(?: to |\.\.)[DS](\d+)", path.read_text())
    }
    assert {letter for _, letter, _ in named} == {"D", "S"}
    assert not {(name, letter, n) for name, letter, n in named if n != last[letter]}
