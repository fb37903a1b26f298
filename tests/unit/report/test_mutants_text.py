# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of mutants names what was not caught."""

from __future__ import annotations

from harness.report.mutants_text import MutantLine, mutants_table

CAUGHT = MutantLine("LOST", 5, "drops one", "R10", (("S23", "PASS"), ("S60", "FAIL (D05)")), "caught", "D05")
OTHER = MutantLine(
    "TWICE", 6, "two of them", "slip", (("S60", "FAIL (total, not named)"),), "caught otherwise", "total"
)
ALIVE = MutantLine("QUIET", 7, "changes nothing", "slip", (("S23", "PASS"),), "SURVIVED", "")
SAME = MutantLine("LEAK", 8, "a.c:3", "f", (), "equivalent", "", "only memory is lost")


def test_survivors_and_what_was_not_named_are_named_at_the_end() -> None:
    text = mutants_table((CAUGHT, OTHER, ALIVE, SAME), (("S23", "PASS"),))
    assert text[0] == "unmutated kernel: S23 PASS"
    assert any("LOST" in row and "S60 FAIL (D05)" in row for row in text)
    assert "4 mutants: 1 caught, 1 caught otherwise, 1 SURVIVED, 1 equivalent" in text
    end = text[text.index("SURVIVED:") :]
    assert end == ["SURVIVED:", "    QUIET", "caught otherwise:", "    TWICE"]
    assert any("only memory is lost" in row for row in text)


def test_without_control() -> None:
    assert mutants_table((CAUGHT,), ())[0] == "unmutated kernel: not run"
