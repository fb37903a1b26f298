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


def failed(*findings: Finding) -> list[str]:
    row = TimelineRow(1_500_000_000, 0, False, 9, "kvm_async_pf_repeated_fault: gva = 0x1", True)
    verdict = dataclasses.replace(GREEN, status=Status.FAIL, findings=findings, timeline=(row,))
    return explain_verdict(verdict, tuple(f"commit {n}" for n in range(9)))


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
