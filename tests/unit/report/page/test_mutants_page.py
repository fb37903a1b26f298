# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of mutants: complete, self-contained, harmless, and honest about holes."""

from __future__ import annotations

import re

import pytest

from harness.report.mutants_text import MutantLine
from harness.report.page.mutants_page import MutantsPage, ShownMutant, ShownTrial, build_mutants_page
from harness.report.page.template import PAGE_BYTES
from tests.unit.report.page.test_build_page import HOSTILE, Reader

TRIAL = ShownTrial("S29", "FAIL", "FAIL (D05)", "20261126-1/S29_ONE%2Bmutants-6.1/")


def mutant(number: int, catch: str = "caught", *, timeline: str = "", words: str = "loses it") -> ShownMutant:
    line = MutantLine(f"M{number}", number, words, "R1", (("S29", "FAIL (D05)"),), catch, "D05", 1, "not tried: S60")
    return ShownMutant(line, (TRIAL,), f"apf mutants M{number}", "S29", ("first divergence: D05",), timeline)


def page(*mutants: ShownMutant, control: tuple[ShownTrial, ...] = ()) -> str:
    return build_mutants_page(MutantsPage("mutants-6.1", "apf mutants", control, mutants))


def test_each_mutant_has_a_row_its_evidence_and_its_command() -> None:
    text = page(mutant(1), mutant(2, "SURVIVED"))
    rows = re.findall(r"<tr data-green=.*?</tr>", text)
    assert [("caught" in r, "SURVIVED" in r, "S29" in r, "loses it" in r) for r in rows] == [
        (True, False, True, True),
        (False, True, True, True),
    ]
    assert f'href="{TRIAL.folder}"' in text and "apf mutants M2" in text and "first divergence: D05" in text
    assert "2 mutants: 1 caught, 1 SURVIVED" in text


@pytest.mark.parametrize(
    ("catch", "green"), [("caught", 1), ("equivalent", 1), ("out of reach", 1), ("SURVIVED", 0),
                         ("caught otherwise", 0), ("undecided", 0), ("not run", 0)],
)  # fmt: skip
def test_a_hole_is_red_and_unfolded(catch: str, green: int) -> None:
    text = page(mutant(1, catch))
    assert f'data-green="{green}"' in text
    assert ("<details open>" in text) is not bool(green)
    assert f'<b class="{"PASS" if green else "FAIL"}">1 mutants' in text


def test_an_unmutated_kernel_that_is_not_green_is_told() -> None:
    text = page(mutant(1), control=(ShownTrial("S60", "PASS", "PASS", ""), ShownTrial("S29", "", "no verdict", "")))
    assert '1 PASS, S29 <span class="missing">no verdict</span>' in text


def test_hostile_words_are_text() -> None:
    text = page(mutant(1, words=HOSTILE))
    tags = Reader(text).tags
    assert [t for t, _ in tags].count("script") == 2, "the page's own two"
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]
    assert not [t for t, _ in tags if t == "img"]
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_the_largest_timelines_stand_beside_a_page_that_would_be_too_large() -> None:
    size = PAGE_BYTES // 10
    text = page(*(mutant(n, timeline="<svg>" + " " * (size + n)) for n in range(12)))
    assert text.count("<svg>") == 9 and len(text) < 2_000_000
    assert text.count("the timeline is not drawn here") == 3
