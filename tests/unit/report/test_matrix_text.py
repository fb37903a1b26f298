# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix as a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.judge.verdict_types import Finding, KnownFaultRow, TotalRow, Verdict
from harness.model.kernels import kernel_for
from harness.model.outcomes import Count
from harness.report.matrix_text import BEGIN, END, Cell, Column, KernelStep, MatrixRow, matrix_text, put_section
from harness.status import Status

OLD = Column("debian-6.1", "6.1.0-56-cloud-amd64", "linux-image 6.1.192-2", kernel_for("nowait", "6.1.192"), ("r1",))
NEW = Column("debian-6.12", "6.12.117", "linux-image 6.12.117-1", kernel_for("nowait", "6.12.117"), ("r2", "r3"))


def cell(status: Status = Status.PASS, reason: str = "", **counts: int) -> Cell:
    columns = tuple(TotalRow(name, Count(n, n), n, True) for name, n in counts.items())
    findings = (Finding("total", reason),) if status is Status.FAIL else ()
    return Cell(Verdict(scenario="S23", status=status, reason=reason, columns=columns, findings=findings), "r1/S23")


def text(rows: list[MatrixRow], steps: list[KernelStep] | None = None) -> str:
    return matrix_text([OLD, NEW], rows, steps or [])


def test_a_row_for_each_scenario_and_what_differs_from_the_left_in_bold() -> None:
    said = text([
        MatrixRow("S23", "one page per read", (cell(sync=24, tokens=0), cell(tokens=24, mapped=1))),
        MatrixRow("S20", "no fault", (cell(), cell())),
        MatrixRow("S1", "other", (cell(mapped=3), None)),
    ])  # fmt: skip
    assert "| scenario | 6.1 | 6.12 |" in said
    assert "| S23 one page per read | S24 | **T24 M1** |" in said
    assert "| S20 no fault | ok | ok |" in said
    assert "| S1 other | M3 |  |" in said
    assert "|  | M3 |" in text([MatrixRow("S1", "other", (None, cell(mapped=3)))])
    assert "| debian-6.12 | 6.12.117 | linux-image 6.12.117-1 | nowait-6.12 as of 6.12.117 | r2, r3 |" in said
    assert "not green" not in said


def test_a_known_fault_is_named_beside_what_was_seen() -> None:
    shown = cell(Status.FINDING, tokens=2)
    fault = KnownFaultRow("F1", predicted=True, shown=True)
    faulty = replace(shown, verdict=replace(shown.verdict, known_faults=(fault,)))
    said = text([MatrixRow("S1", "x", (cell(tokens=2), faulty))])
    assert "| S1 x | T2 | **T2 F1** |" in said and "not green" not in said


def test_what_is_not_green_is_told_once_for_each_reason() -> None:
    bad = cell(Status.FAIL, "NPt: predicted 1, seen 2")
    said = text(
        [MatrixRow("S23", "one", (bad, bad)), MatrixRow("S32", "zswap", (cell(Status.UNSUPPORTED, "no zswap"), cell()))]
    )
    assert "| S23 one | **FAIL** | **FAIL** |" in said and "| S32 zswap | n/a | **ok** |" in said
    assert "- S23 on debian-6.1, debian-6.12: FAIL: " in said
    assert "- S32 on debian-6.1: UNSUPPORTED: no zswap" in said


def test_what_changed_names_release_function_commit_and_where_it_was_seen() -> None:
    rows = [
        MatrixRow("S23", "one page per read", (cell(sync=24), cell(tokens=24))),
        MatrixRow("S20", "no", (cell(mapped=1), cell(mapped=1))),
    ]
    steps = [KernelStep("debian-6.1", "debian-6.12", {"do_poll": ("S23",), "zero_map": ("S20",), "faultin_split": ()})]
    said = " ".join(text(rows, steps).split())
    assert "`do_poll`: 6.6, mm/swap_state.c:read_swap_cache_async" in said
    assert "seen in S23 (S24, then T24)" in said
    assert "not in what accesses come to, but in events and totals of S20" in said
    assert "no scenario shows it" in said
    assert "- nothing that the model knows" in text(rows, [KernelStep("debian-6.1", "debian-6.12", {})])


def test_the_page_keeps_what_people_wrote(tmp_path: Path) -> None:
    first = put_section("# Kernels\n\nWords.\n", text([]))
    assert first.startswith("# Kernels\n\nWords.\n\n## Matrix\n\n" + BEGIN)
    changed = put_section(first + "\n## After\n", text([MatrixRow("S1", "x", (cell(mapped=7), None))]))
    assert "M7" in changed and changed.count(BEGIN) == changed.count(END) == 1
    assert changed.endswith("\n## After\n") and "Words." in changed
    assert put_section(changed, text([MatrixRow("S1", "x", (cell(mapped=7), None))])) == changed
    assert put_section("", text([])).startswith("# ")
