# SPDX-License-Identifier: GPL-2.0-or-later
"""What a killed agent has left is taken back, whoever has its process id by now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.agent.host import resident
from harness.agent.host.reserve import take_back_runs
from harness.agent.host.resident import Resident, clean_up
from harness.agent.host.undo import Journal, undo


@pytest.fixture
def journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resident, "_JOURNALS", f"{tmp_path}/apf-serve-")
    return tmp_path


def left(path: Path) -> Path:
    """A journal that says of a folder that it is to be removed."""
    (path.parent / "made").mkdir()
    Journal(str(path)).change("directory", path=str(path.parent / "made"))
    return path.parent / "made"


def test_a_journal_of_one_that_lives_is_left_alone(journals: Path) -> None:
    with Resident() as mine:
        mine.note_journal(str(journals / "plan.jsonl"))
        (journal,) = journals.glob("apf-serve-*.journal")
        clean_up()
        assert journal.exists()
    assert not journal.exists()


def test_a_process_id_that_another_process_has_now_is_not_its_agent(journals: Path) -> None:
    made = left(journals / f"apf-serve-{os.getpid()}-1.journal")
    clean_up()
    assert not made.exists() and not list(journals.glob("apf-serve-*"))


def test_one_that_nobody_has_waited_for_yet_is_dead(journals: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = Path(f"/proc/{dead.pid}/stat").read_text().rpartition(") ")[2].split()[19]
    made = left(journals / f"apf-serve-{dead.pid}-{started}.journal")
    clean_up()
    assert made.exists()
    dead.kill()
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    clean_up()
    assert not made.exists()
    dead.wait()


def test_what_resists_is_told_and_its_journal_stays(journals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "__defaults__", (0.1, ()))
    path = journals / f"apf-serve-{os.getpid()}-1.journal"
    made = left(path)
    (made / "file").touch()
    (problem,) = clean_up()
    assert problem.startswith("directory ") and path.exists()
    (made / "file").unlink()
    assert clean_up() == []
    assert not made.exists() and not path.exists()


def test_a_machine_on_which_an_agents_own_changes_resist_is_refused(
    journals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is its plans' is told once, by their own journals."""
    monkeypatch.setattr(undo, "__defaults__", (0.1, ()))
    (journals / "runs/one/scope").mkdir(parents=True)
    (journals / "runs/one/plan").mkdir()
    plan = journals / "runs/one/plan/journal.jsonl"
    for name in ("of-plan", "own"):
        (journals / name).mkdir()
        (journals / name / "file").touch()
    Journal(str(plan)).change("directory", path=str(journals / "of-plan"))
    own = Journal(str(journals / f"apf-serve-{os.getpid()}-1.journal"))
    own.change("directory", path=str(journals / "own"))
    own.change("journal", path=str(plan))
    assert [text.partition(":")[0] for text in take_back_runs(str(journals / "runs"))] == ['directory {"path"'] * 2
    (journals / "of-plan/file").unlink()
    (journals / "own/file").unlink()
    assert take_back_runs(str(journals / "runs")) == []
    assert not (journals / "runs/one").exists() and not list(journals.glob("apf-serve-*"))
