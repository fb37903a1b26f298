# SPDX-License-Identifier: GPL-2.0-or-later
"""What repeats a verdict: also one of a scenario that no file has, and none where the kernel is of this run only."""

from __future__ import annotations

import datetime
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts.catalog import find_kernel
from harness.cli import options, parser
from harness.hosts.trial import trial_plan
from harness.results import Key
from harness.run.mutant_trials import PARAMETER
from harness.run.repeat_command import repeat_command
from harness.run.request import Request
from harness.run.run_folder import REPEAT, RunFolder
from harness.run.scenario_sources import read_scenario_files
from harness.run.selection import choose
from harness.scenario.schema import Scenario
from tests.unit.cli.no_machine import REASON, no_machine
from tests.unit.scenarios import all_scenarios
from tests.unit.waiting import HANG_S


def mutated() -> Scenario:
    """As `apf mutants` performs it: neither its id nor its parameter is in any file."""
    scenario = all_scenarios()["S29"]
    return replace(scenario, id="S29@17+go", kernel_params_at_go={PARAMETER: "17"})


def script(tmp_path: Path, request: Request, scenario: Scenario, kernel: str) -> Path:
    folder, key = RunFolder.create(tmp_path / "of", datetime.datetime.now()), Key(scenario.id, kernel)
    return folder.start(key, trial_plan(), scenario, repeat_command(request, key)) / REPEAT


OF_A_MATRIX = next(scenario for name, scenario in all_scenarios().items() if "/" in name)


@pytest.mark.parametrize("scenario", [OF_A_MATRIX, mutated()], ids=lambda s: s.id)
def test_it_means_this_scenario_and_no_other(scenario: Scenario, tmp_path: Path) -> None:
    said = script(tmp_path, Request(kernels=("debian-6.1",)), scenario, "debian-6.1").read_text()
    (line,) = [line for line in said.splitlines() if line.startswith("exec ")]
    words = shlex.split(line)
    assert words[1] == sys.executable
    request = options.request_of(parser(("run",)).parse_args(words[4:]), ("debian-6.1",))
    chosen = choose(read_scenario_files(request.scenario_paths), request.patterns)
    assert chosen.scenarios == (scenario,) and not chosen.refused


def test_it_repeats_it(tmp_path: Path) -> None:
    """From anywhere, on a machine that cannot be reached: the verdict tells that it was tried."""
    lab = tmp_path / "lab"
    lab.mkdir()
    words = no_machine(lab)
    request = Request(kernels=(), host=words[1], lab=Path(words[3]))
    done = subprocess.run(
        [script(tmp_path, request, mutated(), "box")],
        cwd=lab,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    (verdict,) = json.loads((lab / "results/latest/results.json").read_text())["verdicts"]
    assert (verdict["scenario"], verdict["kernel"]) == ("S29@17+go", "box") and REASON in verdict["reason"]


def test_a_kernel_that_only_this_run_has_is_not_named(tmp_path: Path) -> None:
    """A patch that is validated, a revision that is bisected; the base has a name."""
    base = find_kernel("stock-6.1")
    request = Request(kernels=("stock-6.1", "patched"), extra=(base, replace(base, id="patched", variant="noio")))
    scenario = all_scenarios()["S29"]
    assert not script(tmp_path, request, scenario, "patched").exists()
    assert "--kernel stock-6.1" in script(tmp_path, request, scenario, "stock-6.1").read_text()


def test_a_kernel_that_was_named_by_a_path_is_named_by_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linux").mkdir()
    for name in ("Kconfig", "Makefile"):
        (tmp_path / "linux" / name).write_text("")
    request = Request(kernels=("linux", "debian-6.1"), guest_kernel="./linux")
    words = repeat_command(request, Key("S29", "linux")) or []
    assert words[words.index("--kernel") + 1] == words[words.index("--guest-kernel") + 1] == str(tmp_path / "linux")
    words = repeat_command(request, Key("S29", "debian-6.1")) or []
    assert words[words.index("--kernel") + 1] == "debian-6.1"
