# SPDX-License-Identifier: GPL-2.0-or-later
"""apf judge over whole runs: another verdict today is told, and what nobody can judge ends none of the others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import judge, main
from harness.judge.verdict_types import Finding, Stage, Verdict
from harness.run import judge_again
from harness.run.judge_again import JudgedAgain
from harness.run.judge_folder import judge_folder
from harness.status import Status
from tests.unit.cli.command import Called
from tests.unit.judge.packed import packed_capture


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with two verdicts about one sound kernel, as they are today."""
    folder = tmp_path / "results" / "20261127-120000"
    for name in ("S23+debian-6.1", "S24+debian-6.1"):
        for file, content in packed_capture("explored-both-miss").items():
            path = folder / name / "capture" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        verdict = judge_folder(folder / name / "capture", "nowait")
        assert verdict.status is Status.PASS
        (folder / name / "verdict.json").write_text(verdict.to_json())
    return folder


def change(verdict: Path, status: Status) -> None:
    said = Verdict.from_json(verdict.read_text())
    verdict.write_text(replace(said, status=status).to_json())


def test_all_as_before(run: Path, called: Called) -> None:
    done = called("judge", run)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 judged again: 2 as before, 0 differ")


def test_another_verdict_is_told_with_its_folder(run: Path, called: Called) -> None:
    change(run / "S24+debian-6.1" / "verdict.json", Status.FAIL)
    done = called("judge", run)
    assert done.returncode == 1
    assert f"{run}/S24+debian-6.1: FAIL, now PASS" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "2 judged again: 1 as before, 1 differ"


def test_what_nobody_can_judge_is_an_error_and_the_others_are_judged(run: Path, called: Called) -> None:
    verdict = run / "S23+debian-6.1" / "verdict.json"
    verdict.write_text(replace(Verdict.from_json(verdict.read_text()), model="nowait-6.1+F99").to_json())
    done = called("judge", run)
    assert done.returncode == 1
    assert "S23+debian-6.1: PASS, now ERROR: " in done.stdout
    assert done.stdout.splitlines()[-1] == "2 judged again: 1 as before, 1 differ"


def test_what_ended_before_there_was_a_judgement_stays(run: Path, called: Called) -> None:
    file = run / "S24+debian-6.1" / "verdict.json"
    verdict = replace(Verdict.from_json(file.read_text()), status=Status.ERROR, stage=Stage.PERFORM)
    file.write_text(verdict.to_json())
    done = called("judge", run)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == (
        "1 judged again: 1 as before, 0 differ, 1 had ended before there was anything to judge"
    )


def test_what_the_console_told_against_the_kernel_stays(run: Path, called: Called) -> None:
    """It is in no capture."""
    file = run / "S24+debian-6.1" / "verdict.json"
    verdict = Verdict.from_json(file.read_text())
    oops = replace(verdict, status=Status.FAIL, reason="Oops", findings=(Finding("console", "Oops"), *verdict.findings))
    file.write_text(oops.to_json())
    done = called("judge", run)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 judged again: 2 as before, 0 differ")


def test_a_bug_of_ours_ends_none_of_the_others(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(capture: Path, _model: str) -> Verdict:
        if "S23" in str(capture):
            raise KeyError("a bug")
        return judge_folder(capture, _model)

    monkeypatch.setattr(judge_again, "judge_folder", broken)
    assert [each.now for each in map(judge_again._again, judge_again.verdict_folders(run))] == ["ERROR", "PASS"]


def test_several_folders_of_runs_and_of_verdicts(run: Path, called: Called) -> None:
    done = called("judge", run, run / "S23+debian-6.1")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "3 judged again: 3 as before, 0 differ")


def test_a_capture_beside_others_needs_a_verdict_of_before(run: Path, called: Called) -> None:
    (run / "S23+debian-6.1" / "verdict.json").unlink()
    done = called("judge", run, run / "S23+debian-6.1")
    assert done.returncode == 2 and "nothing to compare with" in done.stderr


def test_a_verdict_that_cannot_be_read_is_bad_input(run: Path, called: Called) -> None:
    (run / "S23+debian-6.1" / "verdict.json").write_text("{}")
    done = called("judge", run)
    assert done.returncode == 2 and "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("--json",), ("-k", "noio")])
def test_what_is_for_one_capture_is_refused(words: tuple[str, ...], run: Path, called: Called) -> None:
    done = called("judge", run, *words)
    assert done.returncode == 2 and "for one capture" in done.stderr


def test_an_empty_results_folder_is_no_capture(run: Path, called: Called) -> None:
    shutil.rmtree(run / "S23+debian-6.1")
    shutil.rmtree(run / "S24+debian-6.1")
    assert called("judge", run).returncode == 2


def test_what_was_found_is_told_where_it_is_cut_short(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By Ctrl-C in front of the second of two."""

    def cut_short(folders: Sequence[Path]) -> Iterator[JudgedAgain]:
        yield JudgedAgain(folders[0], "PASS", "FAIL", "D05")
        raise KeyboardInterrupt

    monkeypatch.setattr(judge, "judge_again", cut_short)
    assert main(["judge", str(run)]) == 130
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 2 judged again: 0 as before, 1 differ"
