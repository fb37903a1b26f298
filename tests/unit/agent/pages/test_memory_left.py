# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a process's memory in its cgroup when the process is gone, or is not."""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.agent.host import syscalls
from harness.agent.host.bounded import within
from harness.agent.pages import memory_left
from harness.agent.pages.memory_left import MemoryLeft
from tests.unit.waiting import HANG_S

PAGE = 4096
NOTHING = MemoryLeft(0, 0, unlisted=0, cached=0)


class Group:
    """A scenario's cgroup that answers one after the other; the last answer stays."""

    path = "/sys/fs/cgroup/apf-test"

    def __init__(
        self,
        *stats: tuple[int, int],
        ahead: int = 0,
        unlisted: int = 0,
        tables: int = 0,
        cached: int = 0,
        twice: int = 0,
    ) -> None:
        self._answers: Iterator[tuple[int, int]] = iter((*stats, *[stats[-1]] * 1000))
        self._listed, self._ahead, self._unlisted, self._tables = 0, ahead, unlisted, tables
        self._cached, self._twice = cached, twice
        self.asked = 0

    def vmm_stat(self) -> dict[str, int]:
        self.asked += 1
        mapped, self._listed = next(self._answers)
        return {"anon": mapped * PAGE, "inactive_anon": self._listed * PAGE, "active_anon": 3 * PAGE, "unevictable": 0,
                "shmem": (3 + self._twice) * PAGE, "inactive_file": 7 * PAGE, "active_file": 0, "kernel": 50 * PAGE,
                "sock": PAGE, "pagetables": self._tables * PAGE, "swapcached": self._cached * PAGE}  # fmt: skip

    def charged(self) -> int:
        return (self._listed + 3 + 7 + 50 + 1 + self._ahead + self._unlisted) * PAGE

    def give_back(self) -> None:
        self._ahead = 0


@pytest.fixture(autouse=True)
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the batches were emptied; nothing of this machine is touched."""
    emptied: list[int] = []
    monkeypatch.setattr(memory_left, "drain_lru_batches", lambda: emptied.append(1))
    monkeypatch.setattr(memory_left, "SECONDS", HANG_S)
    monkeypatch.setattr(memory_left, "flushed_by_cpu_stat", lambda _release: True)
    monkeypatch.setattr(memory_left, "contexts_left", lambda: None)
    return emptied


@pytest.fixture
def in_vain(batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for does not come, so the wait is a short one; a hole is punched however long that takes."""
    monkeypatch.setattr(memory_left, "SECONDS", 0.2)
    monkeypatch.setattr(memory_left, "within", lambda _seconds, call, what: within(HANG_S, call, what))


@pytest.fixture(autouse=True)
def reclaimed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes were to be reclaimed, each time."""
    asked: list[int] = []
    monkeypatch.setattr(memory_left, "reclaim", lambda _path, byte_count: asked.append(byte_count))
    return asked


def test_nothing_is_left_and_nothing_is_waited_for(batches: list[int]) -> None:
    group = Group((0, 0))
    assert memory_left.memory_left(group) == NOTHING  # type: ignore[arg-type]
    assert group.asked == 1 and not batches


def test_a_worker_may_give_its_reference_back_a_moment_later(batches: list[int]) -> None:
    assert memory_left.memory_left(Group((900, 900), (0, 2), (0, 0))) == NOTHING  # type: ignore[arg-type]
    assert len(batches) == 2


def test_what_is_in_no_page_table_is_reclaimed_and_an_address_space_is_not(reclaimed: list[int]) -> None:
    """Else an address space that is still there would be swapped out, and be no leak."""
    assert memory_left.memory_left(Group((900, 902), (0, 2), (0, 0))) == NOTHING  # type: ignore[arg-type]
    assert reclaimed == [2 * PAGE]


@pytest.mark.usefixtures("in_vain")
@pytest.mark.parametrize("left", [(900, 900), (0, 1)])
def test_what_does_not_go_is_told(left: tuple[int, int]) -> None:
    assert memory_left.memory_left(Group(left)) == MemoryLeft(*left, unlisted=0, cached=0)  # type: ignore[arg-type]


@pytest.mark.usefixtures("in_vain")
def test_what_is_charged_and_on_no_list_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_left, "SECONDS", HANG_S)
    assert memory_left.memory_left(Group((0, 0), ahead=60)) == NOTHING, "taken in advance"  # type: ignore[arg-type]
    monkeypatch.setattr(memory_left, "SECONDS", 0.2)
    left = memory_left.memory_left(Group((0, 0), unlisted=2))  # type: ignore[arg-type]
    assert left == MemoryLeft(0, 0, unlisted=2, cached=0)
    assert memory_left.memory_left(Group((0, 0), tables=1)).unlisted == 1  # type: ignore[arg-type]


@pytest.mark.usefixtures("in_vain")
def test_what_is_counted_as_shared_memory_and_is_not_there_is_told() -> None:
    assert memory_left.memory_left(Group((0, 0), twice=2)).unlisted == 2  # type: ignore[arg-type]


@pytest.mark.usefixtures("in_vain")
def test_what_is_counted_as_cached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    left = memory_left.memory_left(Group((0, 0), cached=3))  # type: ignore[arg-type]
    assert left == MemoryLeft(0, 0, unlisted=0, cached=3)
    stat = Group.vmm_stat
    monkeypatch.setattr(Group, "vmm_stat", lambda self: {k: v for k, v in stat(self).items() if k != "swapcached"})
    assert memory_left.memory_left(Group((0, 0))) == MemoryLeft(0, 0, unlisted=0)  # type: ignore[arg-type]


def test_kernels_that_do_not_say_what_is_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Group.vmm_stat
    monkeypatch.setattr(Group, "vmm_stat", lambda self: {k: v for k, v in stat(self).items() if k != "kernel"})
    left = memory_left.memory_left(Group((0, 0), unlisted=2))  # type: ignore[arg-type]
    assert left == MemoryLeft(0, 0, cached=0)


def test_kernels_whose_memory_stat_is_folded_in_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_left, "flushed_by_cpu_stat", lambda _release: False)
    found = memory_left.memory_left(Group((0, 0), unlisted=2))  # type: ignore[arg-type]
    assert found == MemoryLeft(0, 0, cached=0)


def test_without_a_group_nobody_can_tell() -> None:
    assert memory_left.memory_left(None) == MemoryLeft(None, None)


def test_pages_of_the_ram_file_that_nobody_has_are_given_away(tmp_path: Path) -> None:
    assert memory_left.memory_left(Group((0, 0)), _ram_file(tmp_path)) == NOTHING  # type: ignore[arg-type]


@pytest.mark.usefixtures("in_vain")
def test_a_page_of_the_ram_file_that_somebody_has_is_told(tmp_path: Path) -> None:
    """A mapping keeps it in the page cache, as a reference too many does; what lies below the pool is not looked at."""
    path = _ram_file(tmp_path)
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert mapped[0] == mapped[memory_left.POOL_GPA + 3 * PAGE] == 0
        left = memory_left.memory_left(Group((0, 0)), path)  # type: ignore[arg-type]
    assert left.mapped == 0 and left.listed in range(1, 9) and left.opened, "the folio that has the page"


@pytest.mark.usefixtures("in_vain")
def test_a_ram_file_that_somebody_has_open_is_told(tmp_path: Path) -> None:
    path = _ram_file(tmp_path)
    with Path(path).open("r+b"):
        assert memory_left.memory_left(Group((0, 0)), path) == replace(NOTHING, opened=True)  # type: ignore[arg-type]
    path = _ram_file(tmp_path)
    with Path(path).open("rb"):
        assert memory_left.memory_left(Group((0, 0)), path) == NOTHING  # type: ignore[arg-type]


def test_works_that_are_not_freed_are_told_and_may_be_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter((2, 1, *[0] * 1000))
    monkeypatch.setattr(memory_left, "works_left", lambda _debugfs: next(counts))
    assert memory_left.memory_left(Group((0, 0))) == replace(NOTHING, works=0)  # type: ignore[arg-type]
    monkeypatch.setattr(memory_left, "SECONDS", 0.2)
    monkeypatch.setattr(memory_left, "works_left", lambda _debugfs: 3)
    assert memory_left.memory_left(Group((0, 0))) == replace(NOTHING, works=3)  # type: ignore[arg-type]


def test_contexts_of_a_userfaultfd_that_are_not_freed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter((1, *[0] * 1000))
    monkeypatch.setattr(memory_left, "contexts_left", lambda: next(counts))
    assert memory_left.memory_left(Group((0, 0))) == replace(NOTHING, contexts=0)  # type: ignore[arg-type]
    monkeypatch.setattr(memory_left, "SECONDS", 0.2)
    monkeypatch.setattr(memory_left, "contexts_left", lambda: 2)
    assert memory_left.memory_left(Group((0, 0))) == replace(NOTHING, contexts=2)  # type: ignore[arg-type]


def test_a_lock_of_the_ram_file_that_is_never_let_go_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _ram_file(tmp_path)
    assert not memory_left.memory_left(Group((0, 0)), path).locked  # type: ignore[arg-type]
    assert not Path(path).exists(), "who waits for the lock keeps it from being unlinked later"
    path = _ram_file(tmp_path)
    monkeypatch.setattr(memory_left.syscalls, "punch_hole", lambda *_: signal.pause())
    monkeypatch.setattr(memory_left, "SECONDS", 0.2)
    assert memory_left.memory_left(Group((0, 0)), path) == replace(NOTHING, locked=True)  # type: ignore[arg-type]


def test_the_first_page_of_the_ram_file_is_made_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 2 * PAGE)
    fd = os.open(path, os.O_RDWR)
    try:
        syscalls.punch_hole(fd, 0, PAGE)
    finally:
        os.close(fd)
    assert path.read_bytes() == bytes(PAGE) + b"x" * PAGE


def _ram_file(folder: Path) -> str:
    """Two pages below the pool and eight in it hold data."""
    path = folder / "ram"
    with path.open("wb") as file:
        file.write(bytes(2 * PAGE))
        file.seek(memory_left.POOL_GPA)
        file.write(bytes(8 * PAGE))
    return str(path)
