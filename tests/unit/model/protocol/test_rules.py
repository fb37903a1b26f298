# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules as data, and ``apf rules``."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields

import pytest

from harness.cli import rules as command
from harness.errors import UsageError
from harness.model.protocol.checker_types import Context
from harness.model.protocol.rules import RULES


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    args = parser.parse_args(["rules", *words])
    return args.func(args)


def test_the_rules_are_d01_to_d44_each_with_a_source():
    assert list(RULES) == [f"D{n:02}" for n in range(1, 45)]
    assert all(rule.source.startswith(name) for name, rule in RULES.items())
    assert all(rule.sentence.endswith(".") for rule in RULES.values())


def test_the_context_that_a_rule_asks_for_exists():
    known = {field.name for field in fields(Context)}
    assert {name for rule in RULES.values() for name in rule.context} <= known


@pytest.mark.parametrize("name", ["D19", "D29", "D36", "D40"])
def test_soft_rules(name):
    assert not RULES[name].strict
    assert sum(not rule.strict for rule in RULES.values()) == 4


def test_a_rule_holds_for_its_series_and_for_trees_that_nobody_described():
    rule = RULES["D32"]
    assert rule.applies_to("6.1", "nowait")
    assert not rule.applies_to("6.12", "nowait")
    assert not rule.applies_to("6.1", "noio")
    assert rule.applies_to("7.3", "nowait")


def test_the_command_lists_all_rules(capsys):
    assert run() == 0
    out = capsys.readouterr().out
    assert out.count("source:") == 44
    assert "D13  strict  5.10, 6.1, 6.12 (noio, nowait)" in out


def test_the_command_prints_json_of_the_rules_asked_for(capsys):
    assert run("--json", "d11", "D40") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [rule["id"] for rule in listed] == ["D11", "D40"]
    assert listed[0]["events"] == ["DONE", "ENTRY"]
    assert listed[1]["strict"] is False


def test_an_unknown_rule_is_an_error():
    with pytest.raises(UsageError, match="D99"):
        run("D99")
