# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run leaves on disk."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from pathlib import Path

import pytest

from harness.contract.plan import Plan, from_json
from harness.errors import InfraFault
from harness.hosts.virtual.opener import trial_plan
from harness.judge.verdict_types import Verdict
from harness.model.kernels import Variant
from harness.results import Key, RunResult
from harness.run.run_folder import ResultsNotWritten, RunFolder
from harness.run.scenario_sources import read_scenarios
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.scenarios import all_scenarios

NOW = datetime.datetime(2026, 11, 22, 9, 30, 0)


def test_latest_points_to_the_newest_run(tmp_path: Path) -> None:
    first = RunFolder.create(tmp_path / "results", NOW)
    second = RunFolder.create(tmp_path / "results", NOW)
    assert first.path != second.path
    assert (tmp_path / "results/latest").resolve() == second.path
    assert os.readlink(tmp_path / "results/latest") == second.path.name


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file is in the way")
    with pytest.raises(InfraFault, match="cannot write results"):
        RunFolder.create(tmp_path / "results", NOW)


def test_a_job_and_its_verdict(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, NOW)
    key = Key("S24/page_cluster=3", "my tree")
    scenario = all_scenarios()["S29"]
    where = folder.start(key, trial_plan(), scenario, ["printf", "%s\n", "it's", "S24/page_cluster=3"])
    assert from_json(Plan, (where / "plan.json").read_text()) == trial_plan()
    said = subprocess.run([where / "repeat.sh"], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["it's", "S24/page_cluster=3", str(where / "scenario.toml")]
    assert read_scenarios([where / "scenario.toml"]) == (scenario,)
    failed = row_of(key, Status.FAIL, "D05: it was", title="a title", log="all about it", variant=Variant.NOIO)
    folder.finish(failed)
    folder.write(RunResult("r", "apf run", (key,), (failed,)))
    assert Verdict.from_json((where / "verdict.json").read_text()) == failed.verdict
    text = (where / "verdict.txt").read_text()
    assert text.startswith("S24/page_cluster=3 on my tree: FAIL\na title\n")
    assert "all about it" in text
    assert json.loads((folder.path / "results.json").read_text())["verdicts"][0]["reason"] == "D05: it was"
    (entry,) = json.loads((folder.path / "results.json").read_text())["verdicts"]
    assert (folder.path / entry["verdict_file"]) == where / "verdict.json"
    assert {p.name for p in folder.path.iterdir()} == {
        where.name,
        "results.json",
        "junit.xml",
        "results.tap",
        "kcidb.json",
        "results.sarif",
    }


def test_consoles_have_names_of_their_own(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, NOW)
    names = [folder.console("debian-6.1").name, folder.console("debian-6.1").name, folder.console("a/b").name]
    assert names == ["debian-6.1-1.console.txt", "debian-6.1-2.console.txt", "a_b-1.console.txt"]


def test_a_full_disk_is_told_with_the_file_and_what_to_do(tmp_path: Path) -> None:
    """/dev/full takes nothing, as a disk that is full."""
    folder = RunFolder.create(tmp_path, NOW)
    (folder.path / ".results.json.part").symlink_to("/dev/full")
    with pytest.raises(ResultsNotWritten) as caught:
        folder.write(RunResult("r", "apf run", (), ()))
    assert caught.value.message == f"this machine: {folder.path}/results.json: No space left on device"
    assert "--results" in caught.value.hint


def test_what_is_in_the_way_of_a_verdict_is_told(tmp_path: Path) -> None:
    folder, row = RunFolder.create(tmp_path, NOW), row_of(Key("S29", "k"), Status.PASS)
    (folder.path / row.folder).write_text("a file")
    with pytest.raises(ResultsNotWritten, match=f"{folder.path}/{row.folder.replace('+', '.')}: File exists"):
        folder.finish(row)
