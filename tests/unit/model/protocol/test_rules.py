# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules as data, and ``apf rules``."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields

import pytest

from harness.cli import rules as command
from harness.errors import UsageError
from harness.model.kernels import KernelModel, kernel_for
from harness.model.protocol.rules import RULES, RuleContext


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    args = parser.parse_args(["rules", *words])
    return args.func(args)


def test_the_rules_are_numbered_without_a_gap_each_with_a_source():
    assert list(RULES) == [f"D{n:02}" for n in range(1, len(RULES) + 1)]
    assert all(rule.source.startswith(name) for name, rule in RULES.items())
    assert all(rule.sentence.endswith(".") for rule in RULES.values())


def test_the_context_that_a_rule_asks_for_exists():
    known = {field.name for field in fields(RuleContext)}
    assert {name for rule in RULES.values() for name in rule.context} <= known


def test_soft_rules():
    assert [name for name, rule in RULES.items() if not rule.strict] == ["D19", "D29", "D40"]


@pytest.mark.parametrize(
    ("rule", "variant", "release", "holds"),
    [
        ("D32", "nowait", "6.1.192", True), ("D32", "nowait", "6.12.117", False), ("D32", "noio", "6.1.192", False),
        ("D32", "nowait", "7.3.4", False), ("D35", "nowait", "5.10.262", False), ("D35", "noio", "6.1.192", True),
        ("D11", "nowait", "6.1.83", False), ("D11", "nowait", "6.1.84", True), ("D01", "sync", "6.1.192", False),
    ],
)  # fmt: skip
def test_a_rule_holds_where_the_kernel_behaves_so(rule, variant, release, holds):
    assert RULES[rule].holds_for(kernel_for(variant, release)) is holds


def test_what_a_rule_needs_is_a_behaviour_of_the_kernel_model():
    """A field, or what follows from fields."""
    derived = {name for name, value in vars(KernelModel).items() if isinstance(value, property)}
    assert {rule.needs for rule in RULES.values()} - {""} <= {field.name for field in fields(KernelModel)} | derived


def test_the_command_lists_all_rules(capsys):
    assert run() == 0
    out = capsys.readouterr().out
    assert out.count("source:") == len(RULES)
    assert "D13  strict  5.10.262, 6.1.192, 6.12.117, 7.2.13, 7.3.4 (noio, nowait)" in out


def test_the_command_prints_json_of_the_rules_asked_for(capsys):
    assert run("--json", "d11", "D40") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [rule["id"] for rule in listed] == ["D11", "D40"]
    assert listed[0]["events"] == ["DONE", "ENTRY"]
    assert listed[1]["strict"] is False


def test_an_unknown_rule_is_an_error():
    with pytest.raises(UsageError, match="D99"):
        run("D99")
