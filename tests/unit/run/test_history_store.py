# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in SQLite: taken in once, anew when they changed, and captures kept by size."""

from __future__ import annotations

import datetime
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import InfraFault
from harness.judge.verdict_types import Stage
from harness.report.history_text import night_text
from harness.report.history_trends import night_of
from harness.results import Key, RunResult
from harness.run.history_store import FILE, open_history
from harness.run.run_folder import RunFolder
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.waiting import HANG_S


def make_run(
    results: Path, night: int, statuses: Sequence[Status], *, facts: dict[str, str] | None = None, capture_kib: int = 0
) -> RunFolder:
    """A run of S0, S1, ... in a night, written as runs are."""
    folder = RunFolder.create(results, datetime.datetime(2026, 11, night, 2))
    rows = tuple(
        row_of(Key(f"S{n}", "k"), status, "" if status is Status.PASS else "D05: lost", stage=Stage.JUDGE)
        for n, status in enumerate(statuses)
    )
    for row in rows:
        capture = folder.path / row.folder / "capture"
        capture.mkdir(parents=True)
        (capture / "events.txt").write_bytes(b"x" * (capture_kib << 10))
        folder.finish(row)
    result = RunResult(
        folder.path.name, "apf run", tuple(row.key for row in rows), rows, seconds=60.0,
        facts=facts or {"k made from": "linux 1", "host": "virtual"},
    )  # fmt: skip
    folder.write(result)
    return folder


P, F = Status.PASS, Status.FAIL


def test_runs_are_taken_in_once(tmp_path: Path) -> None:
    make_run(tmp_path, 1, [P, P])
    make_run(tmp_path, 2, [P, F], facts={"k made from": "linux 2", "host": "ssh:box"})
    with open_history(tmp_path) as history:
        assert len(history.take_in()) == 2
        assert history.take_in() == ()
        assert [(v.run, v.scenario, v.status, v.build, v.host) for v in history.verdicts()] == [
            ("20261101-020000", "S0", P, "linux 1", "virtual"), ("20261101-020000", "S1", P, "linux 1", "virtual"),
            ("20261102-020000", "S0", P, "linux 2", "ssh:box"), ("20261102-020000", "S1", F, "linux 2", "ssh:box"),
        ]  # fmt: skip
        assert [(r.began, r.exit_code, r.seconds) for r in history.runs()] == [
            ("2026-11-01T02:00:00", 0, 60.0), ("2026-11-02T02:00:00", 1, 60.0),
        ]  # fmt: skip
    with open_history(tmp_path) as history:
        assert history.take_in() == ()
        assert len(history.runs()) == 2


def test_a_run_that_goes_on_is_taken_in_anew(tmp_path: Path) -> None:
    folder = make_run(tmp_path, 1, [P])
    with open_history(tmp_path) as history:
        history.take_in()
        rows = (row_of(Key("S0", "k"), P), row_of(Key("S1", "k"), F, "D05: lost"))
        folder.finish(rows[1])
        folder.write(RunResult(folder.path.name, "apf run", tuple(r.key for r in rows), rows, troubles=("t",)))
        assert history.take_in() == (folder.path.name,)
        assert [v.status for v in history.verdicts()] == [P, F]
        assert history.runs()[0].troubles == ("t",)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}'])
def test_what_is_no_result_is_passed_over(text: str, tmp_path: Path) -> None:
    make_run(tmp_path, 1, [P])
    (tmp_path / "20261102-020000").mkdir()
    (tmp_path / "20261102-020000/results.json").write_text(text)
    with open_history(tmp_path) as history:
        assert len(history.take_in()) == 1
        assert len(history.runs()) == 1


def test_runs_of_one_night(tmp_path: Path) -> None:
    for night in (1, 2, 3):
        make_run(tmp_path, night, [P])
    with open_history(tmp_path) as history:
        history.take_in()
        assert history.tonight(12) == ("20261103-020000",)
        assert history.tonight(24) == ("20261102-020000", "20261103-020000")


def captures(results: Path) -> list[str]:
    return sorted(f"{p.parts[-3][:8]}/{p.parts[-2]}" for p in results.glob("2*/*/capture"))


def test_captures_go_by_size_green_ones_first_and_what_is_bad_now_stays(tmp_path: Path) -> None:
    make_run(tmp_path, 1, [P, F], capture_kib=1024)
    make_run(tmp_path, 2, [P, F], capture_kib=1024)
    make_run(tmp_path, 3, [P, P], capture_kib=1024)
    with open_history(tmp_path) as history:
        history.take_in()
        assert history.keep(100) == ()
        assert len(history.keep(5)) == 2
        assert captures(tmp_path) == ["20261101/S1+k", "20261102/S1+k", "20261103/S0+k", "20261103/S1+k"]
        history.keep(1)
        # The newest run, and the last bad one of S1, stay whatever the size.
        assert captures(tmp_path) == ["20261102/S1+k", "20261103/S0+k", "20261103/S1+k"]
        assert (tmp_path / "20261101-020000/S1+k/verdict.json").exists()


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(InfraFault, match="version 99"), open_history(tmp_path):
        pass
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(InfraFault, match="not a database"), open_history(tmp_path):
        pass


def test_counts_can_be_asked_for_in_sql(tmp_path: Path) -> None:
    folder = make_run(tmp_path, 1, [P])
    verdict = folder.path / "S0+k/verdict.json"
    raw = json.loads(verdict.read_text())
    raw["columns"] = [{"name": "tokens", "seen": 4, "predicted": [4]}]
    verdict.write_text(json.dumps(raw))
    with open_history(tmp_path) as history:
        history.take_in()
    db = sqlite3.connect(tmp_path / FILE)
    assert db.execute("SELECT name, seen, predicted FROM counts").fetchall() == [("tokens", 4, "[4]")]
    db.close()


def test_the_command(tmp_path: Path) -> None:
    def apf(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "harness.cli", "history", "--results", str(tmp_path), *words],
            capture_output=True, text=True, timeout=HANG_S, check=False,
        )  # fmt: skip

    assert apf().returncode == 2
    make_run(tmp_path, 1, [P, P])
    green = apf()
    assert (green.returncode, green.stdout.splitlines()[0]) == (0, "apf 2026-11-01: green, 2 scenarios")
    make_run(tmp_path, 2, [P, F])
    bad = apf("--mail", "me@example.org")
    assert bad.returncode == 1
    assert "\nSubject: apf 2026-11-02: 1 bad (1 new), 1 green\n" in bad.stdout
    assert "S1 on k: PASS -> FAIL" in bad.stdout


NIGHTS = Path(__file__).parents[2] / "data/nights"


def test_three_nights_with_a_mutant_in_the_second(tmp_path: Path) -> None:
    """Real runs of the kernel mutants-6.1: as it is, with TOKEN_ZERO switched on, and as it is again.

    The second was performed by `apf mutants`, which names what it does (S60@TOKEN_ZERO); here nobody knows.
    """
    told = []
    for folder in sorted(NIGHTS.iterdir()):
        shutil.copytree(folder, tmp_path / folder.name)
        path = tmp_path / folder.name / "results.json"
        path.write_text(path.read_text().replace('"scenario": "S60@TOKEN_ZERO"', '"scenario": "S60"'))
        with open_history(tmp_path) as history:
            history.take_in()
            told.append(night_of(history.runs(), history.verdicts(), history.tonight(0.001)))
    first, second, third = told
    assert [len(night.runs) for night in told] == [1, 1, 1]
    assert first.green and not first.bad and not first.flaky
    assert not second.green
    assert [(c.now.scenario, c.was and c.was.status, c.now.status) for c in second.changes] == [("S60", P, F)]
    (streak,) = second.bad
    assert streak.last_green is not None and streak.last_green.run == first.runs[0].run
    assert streak.now.reason.startswith("D03: vCPU 0: token 0x0")
    assert {v.scenario for v in second.gone} == {"S29", "S61"}
    text = night_text(second)
    assert "S60 on mutants-6.1: PASS -> FAIL" in text and "on the same kernel" in text and "D03: vCPU 0" in text
    assert third.green and not third.bad
    assert ("S60", F, P) in {(c.now.scenario, c.was and c.was.status, c.now.status) for c in third.changes}
    assert [(f.now.scenario, f.bad, f.verdicts) for f in third.flaky] == [("S60", 1, 3)], "on one and the same build"
