# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of mutants names what was not caught."""

from __future__ import annotations

from harness.report.mutants_text import MutantLine, mutants_page, mutants_table, replace_section

CAUGHT = MutantLine("LOST", 5, "drops one", "R10", (("S23", "PASS"), ("S60", "FAIL (D05)")), "caught", "D05")
OTHER = MutantLine(
    "TWICE", 6, "two of them", "slip", (("S60", "FAIL (total, not named)"),), "caught otherwise", "total"
)
ALIVE = MutantLine("QUIET", 7, "changes nothing", "slip", (("S23", "PASS"),), "SURVIVED", "")
SAME = MutantLine("LEAK", 8, "a.c:3", "f", (), "equivalent", "", note="only memory is lost")


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


POINT = MutantLine(
    "f: a | b zero", 1000, "virt/a.c:7", "f", (("S1", "FAIL (D05)"), ("S2", "FAIL (D07)")), "caught", "D05", 2
)


def test_the_page_has_a_table_for_each_function_and_the_argument_where_nobody_can_notice() -> None:
    same = MutantLine("f: x; left out", 1001, "virt/a.c:9", "f", (), "equivalent", "", note="only memory is lost")
    other = MutantLine("g: y negated", 1002, "mm/b.c:3", "g", (("S1", "PASS"),), "SURVIVED", "")
    text = mutants_page("points", "apf mutants", (POINT, same, other), (("S1", "PASS"), ("S32", "UNSUPPORTED")))
    told = " ".join(text)
    assert (
        "3 mutants: 1 caught, 1 SURVIVED, 1 equivalent. 1 were caught by name under scenarios of more than one kind, 0"
        in told
    )
    assert "1 PASS, S32 UNSUPPORTED." in told
    assert "### f (virt/a.c): 1 of 1" in text and "### g (mm/b.c): 0 of 1" in text
    assert "| 7 | `a \\| b zero` | S1 FAIL (D05); S2 FAIL (D07) | caught |" in text
    assert "| 9 | `x; left out` | only memory is lost | equivalent |" in text


def test_mistakes_by_hand_are_one_table() -> None:
    text = mutants_page("mutants-7.3", "apf mutants", (CAUGHT, ALIVE), (("S1", "PASS"), ("S63", "ERROR")))
    assert "2 mutants: 1 caught, 1 SURVIVED. The unmutated kernel: 1 PASS, S63 ERROR." in text
    assert "| `LOST` | drops one | S23 PASS; S60 FAIL (D05) | caught |" in text
    assert "| `QUIET` | changes nothing | S23 PASS | SURVIVED |" in text
    assert not [line for line in text if line.startswith("###")]


def test_what_only_one_kind_of_scenario_notices_is_named_at_the_end_of_the_section() -> None:
    once = MutantLine(
        "f: x; left out", 1001, "virt/a.c:9", "f", (("S1", "FAIL (D05)"),), "caught", "D05", 1, "not by S2 | S3"
    )
    text = mutants_page("points", "apf mutants", (POINT, once), (("S1", "PASS"),))
    assert "1 under one kind alone." in " ".join(text)
    end = text[text.index("### Caught by one kind of scenario alone") :]
    assert end[-1] == "| virt/a.c:9 | `x; left out` | not by S2 \\| S3 |" and len(end) == 5


def test_a_section_of_a_page_is_replaced_and_the_others_stay() -> None:
    page = replace_section("# Mutants\n\nWhat they are.\n", ("## a", "", "one"))
    page = replace_section(page, ("## b", "", "two"))
    assert page == "# Mutants\n\nWhat they are.\n\n## a\n\none\n\n## b\n\ntwo\n"
    again = replace_section(page, ("## a", "", "three"))
    assert again == page.replace("one", "three")
    assert replace_section(again, ("## b", "", "four")) == again.replace("two", "four")
