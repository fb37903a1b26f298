# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of make bench: read back as it was written, and measured in parts."""

from __future__ import annotations

from harness.report.bench_text import Measured, bench_section, merged, rows_of
from harness.report.mutants_text import replace_section

SMOKE = Measured("make smoke", "20 s", "28.1 s", "2026-11-26 16:00, abc1234, load 0.1", "2 processors")
JUDGE = Measured("judge, S60M", "500,000 lines/s", "130,000 lines/s", "2026-11-26 16:00, abc1234, load 0.1", "x")


def test_it_is_read_back_as_it_was_written() -> None:
    section = "\n".join(bench_section([SMOKE, JUDGE]))
    page = f"# Where\n\nwords | words\n\n{section}\n\n## More\n\n| a | b |\n|---|---|\n"
    assert rows_of(page) == [SMOKE, JUDGE]
    assert rows_of("# Where\n\n| a | b |\n") == []


def test_what_is_measured_again_replaces_its_row_and_keeps_the_rest() -> None:
    again = Measured("make smoke", "20 s", "19.0 s", "later", "2 processors")
    new = Measured("make test", "60 s", "250 s", "later", "2 processors")
    assert merged([SMOKE, JUDGE], [new, again]) == [again, JUDGE, new]


def test_the_section_takes_its_place_in_the_page() -> None:
    page = replace_section("# Where\n\n## The judge\n\ntext\n", bench_section([SMOKE]))
    page = replace_section(page, bench_section(merged(rows_of(page), [JUDGE])))
    assert rows_of(page) == [SMOKE, JUDGE]
    assert page.startswith("# Where\n\n## The judge\n\ntext\n")


def test_a_bar_in_a_cell_does_not_break_the_row() -> None:
    odd = Measured("a | b", "", "1 s", "now", "x")
    (row,) = rows_of("\n".join(bench_section([odd])))
    assert row.what == "a / b" and row.aim == ""
