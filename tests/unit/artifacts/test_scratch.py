# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders for a while: those of the dead are removed, and never those of the living."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.artifacts import scratch
from harness.artifacts.scratch import scratch_folder

ROOT = Path(__file__).parents[3]
_HAS_ONE = """
import signal
from harness.artifacts.scratch import scratch_folder
with scratch_folder("apf-test-") as folder:
    (folder / "file").write_text("of mine")
    print(folder, flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_it_is_gone_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_folder("apf-test-") as folder:
        assert folder.parent == tmp_path and list(folder.iterdir()) == []
        (folder / "file").write_text("of mine")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_no_living_one_loses_its_own(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", _HAS_ONE], stdout=subprocess.PIPE, text=True, env=env) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with scratch_folder("apf-test-") as ours:
            assert (theirs / "file").exists()
            with scratch_folder("apf-test-"):
                assert ours.exists()
        other.send_signal(signal.SIGKILL)
    assert (theirs / "file").exists()
    with scratch_folder("apf-test-"):
        assert not theirs.exists()


def test_what_is_no_folder_of_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "apf-test-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "apf-test-file").write_text("")
    (tmp_path / "apf-other-folder").mkdir()
    with scratch_folder("apf-test-"):
        assert {path.name for path in tmp_path.iterdir()} > {"elsewhere", "apf-test-link", "apf-test-file"}
    assert (tmp_path / "apf-other-folder").is_dir() and (tmp_path / "elsewhere").is_dir()


def test_who_sweeps_may_take_a_new_one_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = tempfile.mkdtemp, []

    def swept(prefix: str) -> str:
        made.append(real(prefix=prefix))
        if len(made) == 1:
            shutil.rmtree(made[0])
        return made[-1]

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", swept)
    with scratch_folder("apf-test-") as folder:
        assert [str(folder)] == made[1:] and folder.is_dir()
