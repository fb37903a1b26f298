# SPDX-License-Identifier: GPL-2.0-or-later
"""Two looks at this machine: equal when nothing was done, and different by exactly what was done."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from harness.agent.host.kernel_files import find_mount
from harness.agent.host.loaded_modules import loaded, unload
from harness.agent.host.loop import backing_inode, detach, open_loop_disk
from harness.agent.host.machine_state import changes, machine_state
from tests.unit.agent.conftest import root_only

pytestmark = [root_only, pytest.mark.usefixtures("host_settings")]


def test_changes_in_words() -> None:
    assert changes({"a": "1", "b": "2"}, {"a": "1", "b": "2"}) == []
    assert changes({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == [
        "a was '1', is absent", "b was '2', is '3'", "c was absent, is '4'",
    ]  # fmt: skip


def test_each_thing_that_is_done_is_seen(tmp_path: Path) -> None:
    cgroup = Path(find_mount("cgroup2"), f"apf-test-{os.getpid()}")
    page_cluster = Path("/proc/sys/vm/page-cluster")
    old = page_cluster.read_text()
    before = machine_state()
    with contextlib.ExitStack() as undo:
        undo.callback(page_cluster.write_text, old)
        page_cluster.write_text("7")
        undo.callback(cgroup.rmdir)
        cgroup.mkdir()
        mount = tmp_path / "apf-mount"
        mount.mkdir()
        undo.callback(subprocess.run, ["umount", mount], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], check=True)
        meanwhile = {text.partition(" was ")[0] for text in changes(before, machine_state())}
        assert {"/proc/sys/vm/page-cluster", "cgroups", "mounts"} <= meanwhile
    assert changes(before, machine_state()) == []


def test_a_loop_disk_is_seen_and_taken_back(tmp_path: Path) -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("this machine has no loop devices")
    noted: list[tuple[str, int]] = []
    path = open_loop_disk(lambda device, inode: noted.append((device, inode)), str(tmp_path), 64)
    name = f"block device {Path(path).name}"
    assert noted[-1] == (path, backing_inode(path))
    assert machine_state()[name].startswith(f"131072 sectors, file {noted[-1][1]}, ")
    with open(path, "rb"), pytest.raises(OSError, match="busy"):
        detach(path, noted[-1][1])
    detach(path, noted[-1][1])
    assert backing_inode(path) != noted[-1][1]
    detach(path, noted[-1][1])  # not ours any more, if anybody's


def test_no_room_for_a_loop_disk_takes_no_device(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], check=True)
    noted: list[str] = []
    try:
        with pytest.raises(OSError, match="No space left"):
            open_loop_disk(lambda device, _inode: noted.append(device), str(small), 64)
        assert noted == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_module_that_is_not_loaded_is_unloaded() -> None:
    assert "no_such_module" not in loaded()
    unload("no_such_module")
