# SPDX-License-Identifier: GPL-2.0-or-later
"""Ten lines say what should have happened by which function, and what happened instead."""

from __future__ import annotations

import dataclasses

import pytest

from harness.judge.verdict_types import Finding, TimelineRow
from harness.model.protocol.rules import RULES
from harness.report.explain_verdict import MAX_LINES, Citation, cited_by, explain_verdict
from harness.status import Status
from tests.unit.report.judged import golden

GREEN = golden("captures", "S29").verdict


def failed(*findings: Finding, commits: int = 9) -> list[str]:
    row = TimelineRow(1_500_000_000, 0, False, 9, "kvm_async_pf_repeated_fault: gva = 0x1", True)
    verdict = dataclasses.replace(GREEN, status=Status.FAIL, findings=findings, timeline=(row,))
    return explain_verdict(verdict, tuple(f"commit {n}" for n in range(commits)))


def test_a_rule_names_its_function_and_the_commits_of_that_area() -> None:
    lines = failed(Finding("D05", "token 0x1000 has no RDY", line=65), Finding("total", "RDY: predicted 1, seen 0"))
    text = "\n".join(lines)
    assert len(lines) <= MAX_LINES == 10
    assert RULES["D05"].sentence in text
    assert "virt/kvm/async_pf.c:kvm_check_async_pf_completion" in text
    assert "instead: token 0x1000 has no RDY" in text
    assert "events.txt:65, 1.500000 s" in text and "and 1 more findings: total" in text
    assert "look at: commit 0" in lines and "look at: commit 3" not in lines


def test_an_item_names_the_functions_of_the_models_reason() -> None:
    finding = Finding("item", "item 0 ended otherwise", item=0)
    cited = cited_by(GREEN, finding)
    assert cited and all(c.function in GREEN.items[0].why for c in cited)
    assert "should have been: item 0 (read f[8]) token" in "\n".join(failed(finding))


def test_a_total_names_where_it_is_counted() -> None:
    assert cited_by(GREEN, Finding("total", "DONE: predicted 1, seen 0")) == (
        Citation("virt/kvm/async_pf.c", "async_pf_execute"),
    )
    assert "DONE = 1" in "\n".join(failed(Finding("total", "DONE: predicted 1, seen 0")))


def test_what_nothing_explains_is_said_so() -> None:
    assert any("nothing else explains it" in line for line in failed(Finding("unexplained", "a stray RDY")))


def test_a_pass_says_what_it_saw() -> None:
    lines = explain_verdict(GREEN)
    assert lines[0].endswith("PASS by nowait-6.1")
    assert "2 items are as predicted: token, repeated" in lines[1]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_names_a_function_of_the_kernel_or_none(rule: str) -> None:
    source = RULES[rule].source
    cited = cited_by(GREEN, Finding(rule, "x"))
    assert all(c.file in source and c.function in source for c in cited)
    assert cited or ".c:" not in source


def test_of_the_others_each_kind_is_told_once_and_rules_of_the_protocol_first() -> None:
    many = [Finding("total", f"T{n}: predicted 1, seen 0") for n in range(9)]
    twice = Finding("D17", "twice", line=70), Finding("D17", "thrice")
    lines = failed(Finding("D05", "lost", line=65), *many, *twice, commits=0)
    assert lines.index("also D17, 2 times: twice") < lines.index("also total, 9 times: T0: predicted 1, seen 0")
    lines = failed(Finding("D05", "lost", line=65), *many, *twice, commits=2)
    assert "also D17, 2 times: twice" in lines and "and 9 more findings: total" in lines
    assert len(lines) == MAX_LINES


def test_the_time_and_the_line_are_those_of_the_finding_that_has_them() -> None:
    lines = failed(Finding("item", "item 2 (read f[8]) never ended", item=2), Finding("D05", "lost", line=65))
    assert lines[1] == "first divergence: item, item 2 (no line of the trace)"
    assert "first in the trace: D05: lost (trace/events.txt:65, 1.500000 s)" in lines
    assert not any(line.startswith("also D05") for line in lines)


def test_what_stands_beside_it_is_not_repeated() -> None:
    (row,) = [row for row in GREEN.items if row.index == 0]
    finding = Finding("item", f"item 0 (read f[8]): predicted token, seen sync; {row.why}", item=0)
    assert f"instead: predicted token, seen sync{_blocked(row.blocked_ns)}" in failed(finding)


def _blocked(ns: int) -> str:
    return f", blocked {ns / 1e6:.1f} ms" if ns else ""


def test_a_reason_without_a_function_falls_back_to_what_decides() -> None:
    rows = tuple(dataclasses.replace(row, why="the gfn has live work") for row in GREEN.items)
    cited = cited_by(dataclasses.replace(GREEN, items=rows), Finding("item", "x", item=rows[1].index))
    assert rows[1].predicted == ("repeated",)
    assert cited == (Citation("arch/x86/kvm/x86.c", "kvm_find_async_pf_gfn"),)
