# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenario's cgroup: which kernels fold its counters in by themselves, and what makes the others do it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.agent.host import cgroup
from harness.agent.host.cgroup import ScenarioCgroup, flushed_by_cpu_stat, make_cgroup
from harness.agent.host.kernel_files import find_mount, read_text
from harness.agent.host.undo import Journal
from harness.errors import InfraFault


@pytest.mark.parametrize(
    ("release", "by_cpu_stat"),
    [
        ("5.10.0-46-cloud-amd64", True), ("6.15.11-apf", True), ("6.16.3+deb13-cloud-amd64", False),
        ("6.16-rc1", False), ("7.3.4", False), ("10.0.1", False),
    ],
)  # fmt: skip
def test_which_kernels_need_much_change(release: str, by_cpu_stat: bool) -> None:
    assert flushed_by_cpu_stat(release) is by_cpu_stat


def _can_make_groups() -> bool:
    root = find_mount("cgroup2")
    return bool(root) and os.access(root, os.W_OK) and "memory" in read_text(f"{root}/cgroup.controllers").split()


@pytest.mark.skipif(not _can_make_groups(), reason="needs a cgroup v2 hierarchy with the memory controller")
@pytest.mark.usefixtures("host_settings")
@pytest.mark.parametrize("by_cpu_stat", [True, False])
def test_the_agent_comes_home_and_leaves_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_cpu_stat: bool
) -> None:
    monkeypatch.setattr(cgroup, "flushed_by_cpu_stat", lambda _release: by_cpu_stat)
    journal = Journal(str(tmp_path / "journal"))
    home = read_text("/proc/self/cgroup")
    try:
        group: ScenarioCgroup = make_cgroup(journal, f"apf-test-{os.getpid()}")
        found = group.stat()
        assert found["shmem"] == 0 and found["pgmajfault"] == 0
        assert read_text("/proc/self/cgroup") == home
        assert not read_text(f"{group.scratch}/cgroup.procs")
    finally:
        journal.undo_all()
    assert not os.path.exists(group.path)


def test_what_the_agent_left_in_its_own_group_is_not_the_vmms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "flushed_by_cpu_stat", lambda _: True)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "cpu.stat").write_text("usage_usec 1\n")
    (tmp_path / "memory.stat").write_text("anon 12288\ninactive_anon 12288\nshmem 0\n")
    (tmp_path / "scratch/memory.stat").write_text("anon 4096\ninactive_anon 4096\nshmem 0\n")
    assert cgroup.ScenarioCgroup(str(tmp_path)).vmm_stat() == {"anon": 8192, "inactive_anon": 8192, "shmem": 0}


class _Counted:
    """What memory.stat of a group and of its child tell, as from 6.16 on (mm/memcontrol.c:memcg_rstat_updated,
    __mem_cgroup_flush_stats): a child that may be folded in tells those above of no change any more."""

    def __init__(self, group: str, *, child_full: bool, lost: bool = False) -> None:
        self.group, self.child_full, self.group_full, self.lost = group, child_full, False, lost
        self.pages, self.faults = 0, 2
        self.shown = {"shmem": 0, "pgmajfault": 0}

    def change(self, pages: int) -> None:
        self.pages += pages
        if not self.child_full:
            self.child_full = self.group_full = True

    def read(self, path: str) -> str:
        if path == f"{self.group}/scratch/memory.stat":
            self.child_full = False
        elif path == f"{self.group}/memory.stat" and self.group_full and not self.lost:
            self.shown = {"shmem": self.pages, "pgmajfault": self.faults}
            self.child_full = self.group_full = False
        return "".join(f"{name} {value}\n" for name, value in self.shown.items())

    @contextmanager
    def many(self, _path: str) -> Iterator[int]:
        self.change(320)
        yield 320
        self.change(-320)


@pytest.mark.parametrize("child_full", [False, True])
def test_what_is_above_is_folded_in_whatever_the_child_was_like(
    monkeypatch: pytest.MonkeyPatch, child_full: bool
) -> None:
    counted = _Counted("/group", child_full=child_full)
    monkeypatch.setattr(cgroup, "flushed_by_cpu_stat", lambda _: False)
    monkeypatch.setattr(cgroup, "read_text", counted.read)
    monkeypatch.setattr(cgroup, "_many_pages", counted.many)
    assert ScenarioCgroup("/group").stat() == {"shmem": 0, "pgmajfault": 2}


def test_a_group_that_never_shows_a_change_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = _Counted("/group", child_full=False, lost=True)
    monkeypatch.setattr(cgroup, "flushed_by_cpu_stat", lambda _: False)
    monkeypatch.setattr(cgroup, "_SHOWS_SECONDS", 0.01)
    monkeypatch.setattr(cgroup, "read_text", counted.read)
    monkeypatch.setattr(cgroup, "_many_pages", counted.many)
    with pytest.raises(InfraFault, match="does not show what its groups allocate"):
        ScenarioCgroup("/group").stat()
