# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal with real changes: files, a cgroup with a process in it, and agents killed between the steps."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.agent.host import undo as undo_module
from harness.agent.host.kernel_files import find_mount
from harness.agent.host.undo import Journal, pending, undo
from tests.unit.agent.conftest import root_only
from tests.unit.waiting import HANG_S


def test_write_is_put_back(tmp_path: Path) -> None:
    knob = tmp_path / "knob"
    knob.write_text("3\n")
    journal = Journal(str(tmp_path / "journal"))
    journal.write(str(knob), "0")
    assert knob.read_text().startswith("0")
    assert journal.undo_all(1) == []
    assert knob.read_text().startswith("3")
    assert pending(journal.path) == []


def test_what_is_so_already_is_no_change(tmp_path: Path) -> None:
    knob = tmp_path / "knob"
    knob.write_text("0\n")
    Journal(str(tmp_path / "journal")).write(str(knob), "0")
    assert not (tmp_path / "journal").exists()


def test_last_change_first(tmp_path: Path) -> None:
    knob = tmp_path / "knob"
    knob.write_text("1")
    journal = Journal(str(tmp_path / "journal"))
    journal.write(str(knob), "2")
    journal.write(str(knob), "3")
    assert journal.undo_all(1) == []
    assert knob.read_text() == "1"


def test_a_torn_last_line_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(str(path)).change("directory", path=str(tmp_path / "made"))
    with path.open("a") as file:
        file.write('{"n": 2, "kind": "direc')
    assert [c["n"] for c in pending(str(path))] == [1]


def test_undo_of_what_was_never_made_and_undo_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    journal = Journal(path)
    journal.change("directory", path=str(tmp_path / "never"))
    journal.change("file", path=str(tmp_path / "never either"))
    journal.change("swap", device=str(tmp_path / "no swap"))
    journal.change("mount", path=str(tmp_path / "no mount"))
    journal.change("write", path=str(tmp_path / "no knob"), old="1")
    journal.change("cgroup", path=str(tmp_path / "no cgroup"))
    journal.change("instance", path=str(tmp_path / "no instance"))
    assert undo(path, 1) == []
    assert undo(path, 1) == []


def test_what_resists_is_reported_and_the_rest_undone(tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    for folder in (full, empty):
        folder.mkdir()
    (full / "file").touch()
    journal = Journal(str(tmp_path / "journal"))
    journal.change("directory", path=str(empty))
    journal.change("directory", path=str(full))
    problems = journal.undo_all(0.2)
    assert len(problems) == 1 and "full" in problems[0]
    assert not empty.exists()
    assert [c["path"] for c in pending(journal.path)] == [str(full)]
    (full / "file").unlink()
    assert undo(journal.path, 1) == []


@pytest.mark.parametrize("line", ['{"n": 2, "kind": "of-another-version"}', '{"n": 2, "kind": "write", "path": "x"}'])
def test_what_an_undo_did_not_foresee_keeps_no_other_from_being_done(tmp_path: Path, line: str) -> None:
    """Another version of the agent has left a kind of change that we do not know, or know otherwise."""
    (tmp_path / "made").mkdir()
    path = tmp_path / "journal"
    Journal(str(path)).change("directory", path=str(tmp_path / "made"))
    with path.open("a") as file:
        file.write(line + "\n")
    (problem,) = undo(str(path), 0.1)
    assert "Error: " in problem
    assert not (tmp_path / "made").exists()
    assert [c["n"] for c in pending(str(path))] == [2]


@pytest.mark.parametrize("user", ["mount", "swap"])
def test_a_device_that_is_in_use_still_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    """Taken away below its file system it had the kernel write errors, and the verdict on the kernel was ERROR."""
    taken: list[str] = []

    def resists(**_args: object) -> None:
        raise OSError(errno.EBUSY, "busy")

    for kind in ("nbd", "loop", "mount", "swap", "write"):
        call = resists if kind == user else lambda _kind=kind, **_args: taken.append(_kind)
        monkeypatch.setitem(undo_module._UNDO, kind, call)
    monkeypatch.setattr(undo_module, "let_go", lambda _path: None)
    journal = Journal(str(tmp_path / "journal.jsonl"))
    journal.change("loop", device="/dev/loop0")
    journal.change("write", path="a", old="b")
    journal.change(user, path="/mnt")
    journal.change("nbd", index=1, pid=1)
    left = journal.undo_all(0)
    assert taken == ["nbd", "write"], "a device that was opened behind it is not below it"
    assert [text.partition(" ")[0] for text in left] == [user, "loop"] and "in use" in left[1]


def test_a_kind_without_undo_is_a_mistake_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no undo"):
        Journal(str(tmp_path / "journal")).change("format-disk", path="/")


_AGENT = """
import os, sys, time
from harness.agent.host.undo import Journal
folder, steps = sys.argv[1], int(sys.argv[2])
journal = Journal(folder + "/journal")
for step in range(steps):
    journal.change("directory", path=f"{folder}/d{step}")
    if step < steps - 1:
        os.mkdir(f"{folder}/d{step}")
print("made", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_killed_agent_is_undone_by_another(tmp_path: Path, steps: int) -> None:
    """SIGKILL after the last change is noted and before it is made."""
    agent = subprocess.Popen(
        [sys.executable, "-c", _AGENT, str(tmp_path), str(steps)], stdout=subprocess.PIPE, text=True
    )
    assert agent.stdout is not None
    assert agent.stdout.readline() == "made\n"
    agent.send_signal(signal.SIGKILL)
    agent.wait(HANG_S)
    agent.stdout.close()
    assert len(list(tmp_path.glob("d*"))) == steps - 1
    done = subprocess.run(
        [sys.executable, "-m", "harness.agent", "undo", "--journal", str(tmp_path / "journal")],
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0
    assert list(tmp_path.glob("d*")) == []
    assert pending(str(tmp_path / "journal")) == []


@root_only
@pytest.mark.usefixtures("host_settings")
@pytest.mark.skipif(not find_mount("cgroup2"), reason="needs a cgroup v2 hierarchy")
def test_a_cgroup_is_killed_and_removed_with_its_children(tmp_path: Path) -> None:
    group = Path(find_mount("cgroup2")) / f"apf-test-{os.getpid()}"
    journal = Journal(str(tmp_path / "journal"))
    journal.change("cgroup", path=str(group))
    (group / "qemu").mkdir(parents=True)
    process = subprocess.Popen(["sleep", "1000"])
    try:
        (group / "qemu" / "cgroup.procs").write_text(str(process.pid))
        assert journal.undo_all() == []
        assert process.wait(HANG_S) == -signal.SIGKILL
        assert not group.exists()
    finally:
        process.kill()
        process.wait()


@root_only
def test_what_is_taken_back_on_a_full_disk_is_taken_back(tmp_path: Path) -> None:
    """The journal cannot note it, which must not keep the rest from being undone."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", small], check=True)
    try:
        knobs = [tmp_path / name for name in "abc"]
        journal = Journal(str(small / "journal"))
        for knob in knobs:
            knob.write_text("1")
            journal.write(str(knob), "2")
        _fill(small)
        with pytest.raises(OSError, match="No space left"):
            for _ in range(4096):  # until the journal's own last page is full
                journal.change("file", path="/nonexistent/" + "x" * 200)
        (tmp_path / "d").write_text("1")
        with pytest.raises(OSError, match="No space left"):
            journal.write(str(tmp_path / "d"), "2")
        assert (tmp_path / "d").read_text() == "1", "what cannot be noted is not done"
        assert undo(journal.path) == []
        assert [knob.read_text() for knob in knobs] == ["1", "1", "1"]
    finally:
        subprocess.run(["umount", small], check=True)


def _fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
