# SPDX-License-Identifier: GPL-2.0-or-later
"""What is noted of a machine that is under another kernel, and that one process has the note."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.hosts.away_note import Away, hold_note
from harness.hosts.reservation import HostBusy
from harness.progress import silent

AWAY = Away("boot", "6.1.0", "#1", "noio-6.1")
HOLD = """
import sys, time
from pathlib import Path
from harness.hosts.away_note import Away, hold_note
with hold_note(Path(sys.argv[1]), "box", "a", 0, lambda *_: None) as note:
    note.write(Away("boot", "6.1.0", "#1", "noio-6.1"))
    print("held", flush=True)
    time.sleep(1000)
"""


def test_what_is_noted_is_read_until_the_machine_is_back(tmp_path: Path) -> None:
    with hold_note(tmp_path / "away", "box", "a", 0, silent) as note:
        assert note.read() is None
        note.write(AWAY)
    with hold_note(tmp_path / "away", "box", "b", 0, silent) as other:
        assert other.read() is None, "another machine of the same name"
    with hold_note(tmp_path / "away", "box", "a", 0, silent) as note:
        assert note.read() == AWAY
        note.clear()
        note.clear()
        assert note.read() is None


def test_a_torn_note_was_not_acted_upon(tmp_path: Path) -> None:
    with hold_note(tmp_path, "box", "a", 0, silent) as note:
        note.write(AWAY)
        whole = note.path.read_bytes()
        for size in range(len(whole) - 2):
            note.path.write_bytes(whole[:size])
            assert note.read() is None


def test_who_lives_has_it_and_who_was_killed_has_not(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(HostBusy, match=r"another run has booted noio-6\.1 on box"),
            hold_note(tmp_path, "box", "a", 0.1, silent),
        ):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with hold_note(tmp_path, "box", "a", 0, silent) as note:
        assert note.read() == AWAY
