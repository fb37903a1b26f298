# SPDX-License-Identifier: GPL-2.0-or-later
"""Exit codes and the three files for machines, read back by other people's readers."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import junitparser
import pytest

from harness.report.junit import junit_xml
from harness.report.results_json import results_json
from harness.report.tap import tap_text
from harness.results import Key, RunResult
from harness.status import Status
from tests.unit.rows import row_of

REASON = "no dm-delay on this host \x1b[31m& <that> is all\x00"


def result(*statuses: Status | None, allowed: str = "", interrupted: bool = False) -> RunResult:
    """A run of scenarios S0, S1, ... with these verdicts; None: none."""
    keys = tuple(Key(f"S{n}", "debian-6.1") for n in range(len(statuses)))
    rows = tuple(
        row_of(key, status, "" if status is Status.PASS else REASON, seconds=1.5, log="line 1\nline 2")
        for key, status in zip(keys, statuses, strict=True)
        if status is not None
    )
    return RunResult("r", "apf run", keys, rows, allowed=frozenset(allowed.split()), interrupted=interrupted)


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (result(Status.PASS, Status.PASS), 0),
        (result(Status.PASS, Status.FAIL), 1),
        (result(Status.PASS, Status.INCONCLUSIVE), 1),
        (result(Status.PASS, Status.UNSUPPORTED), 1),
        (result(Status.PASS, Status.UNSUPPORTED, allowed="S1"), 0),
        (result(Status.PASS, Status.UNSUPPORTED, allowed="S0"), 1),
        (result(Status.PASS, Status.ERROR), 3),
        (result(Status.FAIL, Status.ERROR), 1),
        (result(Status.PASS, None), 3),
        (result(), 3),
        (result(Status.PASS, None, interrupted=True), 130),
    ],
)
def test_exit_code(run: RunResult, code: int) -> None:
    assert run.exit_code == code
    assert json.loads(results_json(run))["exit_code"] == code


def test_junit_has_the_reasons() -> None:
    run = result(
        Status.PASS, Status.FAIL, Status.INCONCLUSIVE, Status.UNSUPPORTED, Status.UNSUPPORTED, Status.ERROR, None,
        allowed="S4",
    )  # fmt: skip
    (suite,) = junitparser.JUnitXml.fromstring(junit_xml(run).encode())
    cases = {case.name: case.result for case in suite}
    assert len(cases) == 7
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (7, 3, 2, 1)
    assert cases["S0"] == []
    kinds = {name: type(r[0]).__name__ for name, r in cases.items() if r}
    assert kinds == {"S1": "Failure", "S2": "Failure", "S3": "Failure", "S4": "Skipped", "S5": "Error", "S6": "Error"}
    assert "& <that> is all" in cases["S4"][0].message
    assert cases["S2"][0].type == "INCONCLUSIVE"
    assert "no verdict" in cases["S6"][0].message


def test_junit_is_xml_whatever_a_console_held() -> None:
    run = result(Status.FAIL)
    ET.fromstring(junit_xml(run))


def test_tap() -> None:
    lines = tap_text(result(Status.PASS, Status.FAIL, Status.UNSUPPORTED, None, allowed="S2")).splitlines()
    assert lines[:3] == ["TAP version 13", "1..4", "ok 1 - S0 on debian-6.1"]
    assert lines[3] == "not ok 2 - S1 on debian-6.1"
    assert lines[5].startswith("ok 3 - S2 on debian-6.1 # SKIP no dm-delay")
    assert lines[6] == "not ok 4 - S3 on debian-6.1"


def test_json_names_what_is_missing_and_keeps_the_planned_order() -> None:
    run = result(Status.PASS, None, Status.FAIL)
    shuffled = RunResult(run.run, run.command, run.planned, run.rows[::-1])
    raw = json.loads(results_json(shuffled))
    assert [v["scenario"] for v in raw["verdicts"]] == ["S0", "S2"]
    assert raw["missing"] == [{"scenario": "S1", "kernel": "debian-6.1", "repeat": 1}]
    assert [v["green"] for v in raw["verdicts"]] == [True, False]


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        (Key("S23", "debian-6.1"), "S23+debian-6.1"),
        (Key("S24/page_cluster=3", "noio-6.1", 2), "S24_page_cluster=3+noio-6.1+2"),
        (Key("S1", "/home/me/linux tree"), "S1+_home_me_linux_tree"),
        (Key("../x", "k"), ".._x+k"),
    ],
)
def test_folder_names(key: Key, folder: str) -> None:
    assert key.folder == folder
