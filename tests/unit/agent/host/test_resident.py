# SPDX-License-Identifier: GPL-2.0-or-later
"""What a killed agent has left is taken back, whoever has its process id by now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.agent.host import resident
from harness.agent.host.resident import Resident, clean_up
from harness.agent.host.undo import Journal


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
