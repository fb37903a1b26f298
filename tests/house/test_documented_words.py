# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person writes and reads stands in the documents: each key and word of a scenario, each rule of a finding."""

from __future__ import annotations

import dataclasses
import re

import pytest

from harness.contract import words
from harness.scenario import schema
from tests.house.test_house import ROOT

TABLES = (
    schema.Scenario, schema.GuestSpec, schema.Apf, schema.L2, schema.Memory, schema.Swap, schema.PageSet,
    schema.TimedStep, schema.Step, schema.HostStep,
)  # fmt: skip
WORDS = (
    words.HostWord, words.Release, words.ReadOrder, words.SwapKind, words.Backing, words.PageStart, words.By,
    words.Access, words.GuestKind,
)  # fmt: skip
KEYS = sorted({field.name for table in TABLES for field in dataclasses.fields(table)})
WRITING = "\n".join(
    re.findall(r"`[^`\n]+`|^#+ \[+[a-z0-9.A-Z]+\]+", (ROOT / "docs/writing-scenarios.md").read_text(), re.M)
)
VERDICTS = (ROOT / "docs/reading-verdicts.md").read_text()
FINDING = re.compile(r'Finding\(\s*"([a-z-]+)"')
RULES = sorted({name for f in sorted((ROOT / "harness").rglob("*.py")) for name in FINDING.findall(f.read_text())})


@pytest.mark.parametrize("word", [*KEYS, *(member.value for kind in WORDS for member in kind)])
def test_each_key_and_word_of_a_scenario_is_explained(word: str) -> None:
    assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", WRITING)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_of_a_finding_is_explained(rule: str) -> None:
    assert f"| `{rule}` |" in VERDICTS
