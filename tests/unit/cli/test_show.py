# SPDX-License-Identifier: GPL-2.0-or-later
"""apf show and apf report, on a run's folder."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main, show
from harness.judge.verdict_types import Finding
from harness.report.explain_verdict import Citation
from harness.results import Key, Row, RunResult
from harness.run.area_commits import area_commits
from harness.run.run_folder import RunFolder
from harness.status import Status
from tests.unit.judge.packed import packed_capture
from tests.unit.report.judged import DATA, golden

A, B = Key("S29", "debian-6.1"), Key("S30", "debian-6.1")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path, datetime.datetime(2026, 11, 22))
    verdict = golden("captures", "S29").verdict
    failed = dataclasses.replace(verdict, status=Status.FAIL, findings=(Finding("D05", "no RDY \x1b[31m", line=80),))
    row = Row(A, failed, "twice")
    shutil.copytree(DATA / "captures/S29", folder.path / A.folder / "capture")
    folder.finish(row)
    folder.write(RunResult(folder.path.name, "apf run", (A, B), (row,)))
    return folder


def test_a_verdict_is_explained_and_drawn(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run.path / A.folder), "--width", "100"]) == 0
    said = capsys.readouterr().out
    assert "kvm_check_async_pf_completion" in said and "-- the model" in said and "HHHH" in said
    assert "\x1b" not in said


def test_what_the_guest_was_offered_is_shown(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run.path / A.folder
    shutil.rmtree(folder / "capture")
    for name, data in packed_capture("interrupt-not-offered").items():
        (folder / "capture" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "capture" / name).write_bytes(data)
    assert main(["show", str(folder), "--width", "100"]) == 0
    assert "\nvCPU 0, 1: CPUID 0x40000001 EAX is 0x1003afb: ASYNC_PF\n" in capsys.readouterr().out


def test_a_run_is_a_table(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert "FAIL" in said and "missing" in said


def test_a_run_is_followed_to_its_end(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Row(A, golden("captures", "S29").verdict)
    second = Row(B, dataclasses.replace(first.verdict, scenario="S30"))

    until = show._until

    def later(holds: Callable[[], bool], end: float) -> bool:
        assert not holds()
        run.finish(second)
        run.write(RunResult(run.path.name, "apf run", (A, B), (first, second)))
        return until(holds, end)

    monkeypatch.setattr(show, "_until", later)
    assert main(["show", str(run.path), "--watch", "--deadline", "600"]) == 0
    said = capsys.readouterr().out
    assert "PASS         S30 on debian-6.1" in said and "missing" not in said


def test_what_does_not_come_is_told(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run.path / B.folder), "--watch", "--deadline", "1"]) == 3
    assert "no verdict within 1 s" in capsys.readouterr().out
    assert main(["show", str(run.path / B.folder)]) == 2


def test_the_page_of_an_old_run(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run.path), "--draw"]) == 0
    assert "index.html" in capsys.readouterr().out
    assert '<svg class="tl"' in (run.path / "index.html").read_text()


def test_commits_of_the_functions_that_are_named(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True,
                       capture_output=True)  # fmt: skip

    git("init", "-q")
    body = "void async_pf_execute(void)\n{\n\ty(%s);\n}\n\nvoid other(void)\n{\n\tx(%s);\n}\n"
    for n, (text, subject) in enumerate(
        ((body % (1, 1), "first"), (body % (2, 1), "the function"), (body % (2, 2), "elsewhere"))
    ):
        (tmp_path / "f.c").write_text(text)
        git("add", "f.c")
        git("commit", "-qm", f"{subject} {n}")
    found = area_commits(tmp_path, [Citation("f.c", "async_pf_execute")])
    assert [line.split(" ", 2)[2] for line in found] == [
        "the function 1 (f.c:async_pf_execute)", "first 0 (f.c:async_pf_execute)",
    ]  # fmt: skip
    assert "elsewhere 2" in area_commits(tmp_path, [Citation("f.c", "gone")])[0], "the file's own history"
    assert area_commits(tmp_path, [Citation("none.c", "f")]) == ()
