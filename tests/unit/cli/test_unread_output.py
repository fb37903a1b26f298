# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command prints is read by nobody any more, or cannot be written: a run goes on, and its exit code is its own.

Of processes: what their output goes to is the matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import COMMANDS, parser
from harness.cli.exit_code import PERFORMING
from tests.unit.cli.no_machine import REASON, no_machine
from tests.unit.waiting import HANG_S

SCENARIOS = ("S23", "S29", "S60")


def unread(*words: str, cwd: Path, stderr_too: bool = False) -> subprocess.CompletedProcess[str]:
    """The command, whose output goes into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as end:
        return subprocess.run(
            [sys.executable, "-m", "harness.cli", *words], stdout=end, stderr=end if stderr_too else subprocess.PIPE,
            text=True, cwd=cwd, timeout=HANG_S, check=False,
        )  # fmt: skip


@pytest.mark.parametrize("stderr_too", [False, True])
def test_a_run_goes_on_without_its_reader(tmp_path: Path, stderr_too: bool) -> None:
    done = unread("run", *SCENARIOS, *no_machine(tmp_path), cwd=tmp_path, stderr_too=stderr_too)
    assert done.returncode == 3, done.stderr
    assert not done.stderr
    told = json.loads((tmp_path / "results/latest/results.json").read_text())
    assert (told["exit_code"], told["missing"]) == (3, [])
    assert [verdict["scenario"] for verdict in told["verdicts"]] == list(SCENARIOS)
    for verdict in told["verdicts"]:
        assert REASON in verdict["reason"] and "BrokenPipe" not in verdict["reason"]
    assert (tmp_path / "results/latest/index.html").exists()


def test_a_run_goes_on_when_its_log_is_full(tmp_path: Path) -> None:
    """And says so where it still can."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", "run", *SCENARIOS, *no_machine(tmp_path)],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, timeout=HANG_S, check=False,
        )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == "apf: no more is told here: No space left on device\n"
    assert json.loads((tmp_path / "results/latest/results.json").read_text())["missing"] == []


@pytest.mark.parametrize("words", [("list",), ("rules",), ("explain", "--backing", "anon-swapped"), ("--help",)])
def test_what_only_prints_is_through(words: tuple[str, ...], tmp_path: Path) -> None:
    done = unread(*words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [("run", "no-such-scenario"), ("list", "no-such-scenario"), ("run", "--no-such")])
def test_an_error_is_one_though_nobody_reads_of_it(words: tuple[str, ...], tmp_path: Path) -> None:
    assert unread(*words, cwd=tmp_path, stderr_too=True).returncode == 2


def test_which_commands_perform(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that have the options of a run."""
    found = set()
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            parser((name,)).parse_args([name, "--help"])
        found |= {name} if "--allow-unsupported" in capsys.readouterr().out else set()
    assert found == PERFORMING
