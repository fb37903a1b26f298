# SPDX-License-Identifier: GPL-2.0-or-later
"""A comparison as text for people, as mail, as JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness.judge.comparison import Comparison, TotalDifference
from harness.judge.verdict_types import KnownFaultRow
from harness.report.compare_text import MAIL_LINES, compare_json, full_text, mail_text
from harness.status import Status
from tests.unit.judge.test_comparison import both


@pytest.fixture(scope="module")
def s23() -> Comparison:
    return both("S23")


def spoilt(c: Comparison, name: str) -> Comparison:
    bad = TotalDifference("NPt", 0, 17, expected=False)
    verdict = dataclasses.replace(c.b, status=Status.FAIL, reason="D05: " + "a long story of what went wrong " * 8)
    return dataclasses.replace(c, scenario=name, b=verdict, differences=(*c.differences, bad))


def test_the_full_text_says_what_differs_and_who_says_so(s23: Comparison) -> None:
    text = full_text("stock", "noio", (s23, spoilt(s23, "S99")))
    assert "outcome of items 0-23: A sync, B token  (as the models say)" in text
    assert "NPt: A 0, B 17  <-- NO MODEL SAYS SO" in text
    assert "B: D05: a long story" in text
    assert "X2" in text.partition("known differences")[2]


@pytest.mark.parametrize("scenarios", [1, 10, 33, 34, 200])
def test_a_mail_has_at_most_forty_short_lines(s23: Comparison, scenarios: int) -> None:
    many = [dataclasses.replace(s23, scenario=f"S{n}") for n in range(scenarios)]
    for comparisons in (many, [*many, spoilt(s23, "S999")], [spoilt(c, c.scenario) for c in many]):
        lines = mail_text("stock-6.1", "stock-6.1 with 0001-x.patch", comparisons, ["KVM: x"]).splitlines()
        assert len(lines) <= MAIL_LINES == 40
        assert max(map(len, lines)) <= 76
        assert f"{len(comparisons)} scenarios" in lines[-1]


def test_what_is_wrong_comes_first_in_a_mail(s23: Comparison) -> None:
    many = [dataclasses.replace(s23, scenario=f"S{n}") for n in range(100)]
    lines = mail_text("a", "b", [*many, spoilt(s23, "S999")]).splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("scenario"))
    assert lines[head + 1].split()[:3] == ["S999", "ok", "FAIL"]
    assert "1 not as the models say" in lines[-1]
    assert any("more lines in the full report" in line for line in lines)


def test_a_known_fault_that_is_gone_is_a_difference(s23: Comparison) -> None:
    """A program without items shows nothing else; and the fault is named once."""
    alike = dataclasses.replace(s23, b=s23.a, differences=())
    row = KnownFaultRow("F1", predicted=True, shown=True)
    faulty = dataclasses.replace(s23.a, status=Status.FINDING, reason="F1: it hangs", known_faults=(row,))
    mail = mail_text("a", "b", [alike, dataclasses.replace(alike, a=faulty)])
    assert "2 scenarios, 1 behave differently, 0 not as the models say." in mail
    assert "S23 A: FINDING F1: it hangs" in mail


def test_nothing_compared_is_still_a_mail() -> None:
    assert "0 scenarios" in mail_text("a", "b", ())


def test_json_for_machines(s23: Comparison) -> None:
    raw = json.loads(compare_json("stock", "noio", (s23, spoilt(s23, "S99"))))
    assert [(s["scenario"], s["b"], s["green"]) for s in raw["scenarios"]] == [
        ("S23", "PASS", True),
        ("S99", "FAIL", False),
    ]
    assert raw["known"]["X2"] == ["S23", "S99"]
    assert raw["scenarios"][0]["differences"][0]["items"] == list(range(24))
