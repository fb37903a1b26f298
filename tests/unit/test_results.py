# SPDX-License-Identifier: GPL-2.0-or-later
"""Exit codes and the three files for machines, read back by other people's readers."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import junitparser
import pytest

from harness.judge.verdict_types import KnownFaultRow
from harness.report.junit import junit_xml
from harness.report.results_json import results_json
from harness.report.tap import tap_text
from harness.report.terminal import table
from harness.results import AcceptedFinding, Key, RunResult
from harness.status import Status
from tests.unit.rows import row_of

REASON = "no dm-delay on this host \x1b[31m& <that> is all\x00"


ACCEPTED = (AcceptedFinding("F1", ("debian-*",), "no fix yet"),)
SHOWN = (KnownFaultRow("F1", predicted=True, shown=True),)
GONE = (KnownFaultRow("F1", predicted=True, shown=False),)


def known(
    status: Status, rows: tuple[KnownFaultRow, ...], *accepted: AcceptedFinding, scenario: str = "S1"
) -> RunResult:
    """A run of one scenario that has to do with a known fault."""
    key = Key(scenario, "debian-6.1")
    row = row_of(key, status, "F1: a reset wedges the vCPU", known_faults=rows)
    return RunResult("r", "apf run", (key,), (row,), accepted=accepted)


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
        (known(Status.FINDING, SHOWN), 1),
        (known(Status.FINDING, SHOWN, *ACCEPTED), 0),
        (known(Status.FINDING, SHOWN, AcceptedFinding("F1", ("stock-6.1",), "elsewhere")), 1),
        (known(Status.FAIL, GONE, *ACCEPTED), 1),
    ],
)
def test_exit_code(run: RunResult, code: int) -> None:
    assert run.exit_code == code
    assert json.loads(results_json(run))["exit_code"] == code


def test_a_trouble_that_is_about_no_scenario_makes_a_green_run_red_and_is_told() -> None:
    run = replace(result(Status.PASS), troubles=("box is not as before: vm.swappiness was '60', is '77'",))
    assert run.exit_code == 3
    assert replace(run, troubles=()).exit_code == 0
    assert json.loads(results_json(run))["troubles"] == list(run.troubles)
    assert "# box is not as before" in tap_text(run)
    assert any("box is not as before" in line for line in table(run))


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


def test_a_finding_is_a_failure_that_says_so_or_skipped_where_it_is_accepted() -> None:
    for accepted, kind in (((), "Failure"), (ACCEPTED, "Skipped")):
        (suite,) = junitparser.JUnitXml.fromstring(junit_xml(known(Status.FINDING, SHOWN, *accepted)).encode())
        (case,) = suite
        (said,) = case.result
        assert (type(said).__name__, said.type) == (kind, "FINDING F1")


def test_tap_of_a_finding_is_known_to_fail() -> None:
    assert "# FINDING F1: F1: a reset" in tap_text(known(Status.FINDING, SHOWN))
    assert "not ok 1 - S1 on debian-6.1 # TODO FINDING F1: F1: a" in tap_text(known(Status.FINDING, SHOWN, *ACCEPTED))


def test_json_of_a_finding() -> None:
    raw = json.loads(results_json(known(Status.FINDING, SHOWN, *ACCEPTED)))
    assert raw["accepted_findings"][0]["finding"] == "F1" and raw["to_retire"] == []
    (row,) = raw["verdicts"]
    assert row["known_faults"] == [{"id": "F1", "predicted": True, "shown": True}] and row["green"]


def test_what_is_accepted_and_gone_is_to_be_retired() -> None:
    assert not known(Status.FINDING, SHOWN, *ACCEPTED).to_retire
    assert not known(Status.PASS, (), *ACCEPTED).to_retire, "S1 is no scenario that shows F1"
    for gone in (known(Status.FAIL, GONE, *ACCEPTED), known(Status.PASS, (), *ACCEPTED, scenario="S109")):
        (told,) = gone.to_retire
        assert "F1 is accepted on debian-6.1, but" in told
        assert told in tap_text(gone) and told in json.loads(results_json(gone))["to_retire"]
        assert told in table(gone)


def test_junit_is_xml_whatever_a_console_held() -> None:
    run = result(Status.FAIL)
    ET.fromstring(junit_xml(run))


def test_tap() -> None:
    lines = tap_text(result(Status.PASS, Status.FAIL, Status.UNSUPPORTED, None, allowed="S2")).splitlines()
    assert lines[:3] == ["TAP version 13", "1..4", "ok 1 - S0 on debian-6.1"]
    results = [line for line in lines[2:] if not line.startswith("#")]
    assert results[1] == "not ok 2 - S1 on debian-6.1"
    assert results[2].startswith("ok 3 - S2 on debian-6.1 # SKIP no dm-delay")
    assert results[3] == "not ok 4 - S3 on debian-6.1"


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


def test_a_refused_scenario_file_is_not_green_and_told() -> None:
    run = replace(result(Status.PASS), refused=("x.toml: $.title: missing",))
    assert run.exit_code == 2
    assert json.loads(results_json(run))["refused"] == list(run.refused)
    assert "refused: x.toml: $.title: missing" in table(run)
    assert table(run)[-1].startswith("1 PASS, 1 scenario file refused in ")
    assert "# x.toml: $.title: missing" in tap_text(run)
    *_, suite = junitparser.JUnitXml.fromstring(junit_xml(run).encode())
    assert suite.errors == 1 and [case.name for case in suite] == ["x.toml"]
    assert replace(run, rows=result(Status.ERROR).rows).exit_code == 3
    assert replace(run, rows=result(Status.FAIL).rows).exit_code == 1
