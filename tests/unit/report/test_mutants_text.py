# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of mutants names survivors."""

from __future__ import annotations

from harness.report.mutants_text import MutantLine, mutants_table

CAUGHT = MutantLine("LOST", 5, "drops one", "R10", (("S23", "PASS"), ("S60", "FAIL (D05)")), "D05")
SURVIVED = MutantLine("QUIET", 6, "does nothing that shows", "slip", (("S23", "PASS"),), "")


def test_all_caught() -> None:
    text = "\n".join(mutants_table([CAUGHT], [("S23", "PASS")]))
    assert "unmutated kernel: S23 PASS" in text
    assert "1 of 1 mutants caught" in text
    assert "S60 FAIL (D05)" in text
    assert "SURVIVED" not in text and "survivors" not in text


def test_a_survivor_is_named() -> None:
    lines = mutants_table([CAUGHT, SURVIVED], [])
    assert lines[0] == "unmutated kernel: not run"
    assert next(line for line in lines if "QUIET" in line).split()[2] == "SURVIVED"
    assert "1 of 2 mutants caught" in lines
    assert lines[-1] == "survivors: QUIET: a hole in the harness"
