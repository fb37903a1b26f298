# SPDX-License-Identifier: GPL-2.0-or-later
"""The store: whole or absent, shared, and nothing left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from harness.artifacts.store import Recipe, Store, default_root
from harness.errors import BuildFailed, InfraFault
from tests.unit.waiting import HANG_S


def test_equal_recipes_have_one_key_whatever_the_order() -> None:
    assert Recipe("a", {"x": 1, "y": [2]}).key == Recipe("a", {"y": [2], "x": 1}).key
    assert Recipe("a", {"x": 1}).key != Recipe("a", {"x": 2}).key
    assert Recipe("a", {"x": 1}).key != Recipe("b", {"x": 1}).key


def test_an_entry_that_was_brought_is_found_by_the_inputs_that_can_be_known_here(tmp_path: Path) -> None:
    made = Store(tmp_path).get(Recipe("thing", {"n": 1, "compiler": "gcc 99"}), lambda folder: (folder / "x").touch())
    (tmp_path / "store/thing-broken").mkdir()
    assert Store(tmp_path).brought("thing", {"n": 1}) == made
    assert Store(tmp_path).brought("thing", {"n": 2}) is None
    assert Store(tmp_path).brought("thin", {"n": 1}) is None


def test_builds_once_and_finds_it_again(tmp_path: Path) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "file").write_text("hello")

    first = Store(tmp_path).get(Recipe("thing", {"n": 1}), build)
    second = Store(tmp_path).get(Recipe("thing", {"n": 1}), build)
    other = Store(tmp_path).get(Recipe("thing", {"n": 2}), build)
    assert first == second != other
    assert len(built) == 2
    assert (first / "file").read_text() == "hello"
    assert (first / "file").stat().st_mode & 0o222 == 0


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def build(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise BuildFailed("no")

    with pytest.raises(BuildFailed):
        store.get(Recipe("thing"), build)
    assert list((tmp_path / "store").iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert store.get(Recipe("thing"), lambda folder: None).is_dir()


def test_full_disk_is_said_in_words(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InfraFault, match="no space left below"):
        Store(tmp_path).get(Recipe("thing"), build)
    assert list((tmp_path / "tmp").iterdir()) == []


def _too_big(folder: Path) -> None:
    (folder / "big").write_bytes(bytes(4 << 20))


def test_really_full_disk(tmp_path: Path) -> None:
    """A file system of one megabyte, where this machine lets us mount one."""
    small = tmp_path / "small"
    small.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount program")
    if done.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        store = Store(small)
        with pytest.raises(InfraFault, match="no space left below"):
            store.get(Recipe("big"), _too_big)
        assert list((small / "store").iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfraFault, match="cannot be written"):
        Store(tmp_path / "file")


_MAKER = """
import sys, time
from pathlib import Path
from harness.artifacts.store import Recipe, Store

def build(folder):
    (folder / "part").write_text("x")
    print("building", flush=True)
    time.sleep(1000)

Store(Path(sys.argv[1])).get(Recipe("thing"), build)
"""


def test_a_killed_build_leaves_nothing_for_the_next(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _MAKER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "building\n"
        assert len(list((tmp_path / "tmp").iterdir())) == 1
        # A second run must not take the draft of a living maker for a stale one.
        Store(tmp_path)
        assert len(list((tmp_path / "tmp").iterdir())) == 1
        maker.send_signal(signal.SIGKILL)
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    store = Store(tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []
    found = store.get(Recipe("thing"), lambda folder: (folder / "whole").touch())
    assert sorted(path.name for path in found.iterdir()) == ["recipe.json", "whole"]


def test_two_runs_share_one_build(tmp_path: Path) -> None:
    started, release = threading.Event(), threading.Event()
    built, waited = [], []

    def build(folder: Path) -> None:
        built.append(folder)
        started.set()
        assert release.wait(HANG_S)

    def tell(what: str, done: float | None = None) -> None:
        waited.append(what)
        release.set()

    first = threading.Thread(target=lambda: Store(tmp_path).get(Recipe("thing"), build))
    first.start()
    assert started.wait(HANG_S)
    found = Store(tmp_path, tell).get(Recipe("thing"), build)
    first.join(HANG_S)
    assert found.is_dir()
    assert len(built) == 1
    assert waited and "waiting for another run" in waited[0]


def test_work_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(BuildFailed), store.work("w") as work:
        (work.folder / "half").write_text("x")
        raise BuildFailed("interrupted")
    with store.work("w") as work:
        assert (work.folder / "half").read_text() == "x"
        assert os.fstat(work.lock)


def test_old_work_goes_unless_it_is_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for age, name in enumerate(["k-new", "k-old", "k-busy", "k-oldest", "other"]):
        with store.work(name) as work:
            pass
        os.utime(work.folder, (10_000 - age, 10_000 - age))
    # The lock is taken by hand: work() would count as use.
    with store.lock("work-k-busy"):
        store.trim_work("k-", 1)
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["k-busy", "k-new", "other"]


def test_old_work_that_another_process_has_removed_or_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    for age, name in enumerate(["k-new", "k-old", "k-used"]):
        with store.work(name) as work:
            pass
        os.utime(work.folder, (10_000 - age, 10_000 - age))

    def meanwhile(text: str) -> None:
        if "k-old" in text:
            os.utime(tmp_path / "work" / "k-used")

    store.progress = meanwhile
    store.trim_work("k-", 1)
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["k-new", "k-used"]


def test_work_of_one_kind_does_not_drive_out_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for age, name in enumerate(["k-tree-1", "k-tree-2", "k-tree-3", "k-base", "k-old"]):
        with store.work(name) as work:
            pass
        os.utime(work.folder, (10_000 - age, 10_000 - age))
    store.trim_work("k-", 1, but="k-tree-")
    store.trim_work("k-tree-", 2)
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["k-base", "k-tree-1", "k-tree-2"]


def test_a_child_that_inherits_the_lock_holds_it(tmp_path: Path) -> None:
    """Two makes in one tree must be impossible, also when the runner of the first was killed."""
    store = Store(tmp_path)
    with store.work("w") as work:
        child = subprocess.Popen(["sleep", "1000"], pass_fds=[work.lock])
    script = textwrap.dedent("""
        import fcntl, sys
        try:
            fcntl.flock(open(sys.argv[1], "w"), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("held")
        else:
            print("free")
    """)

    def state() -> str:
        path = tmp_path / "locks/work-w.lock"
        return subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout

    try:
        assert state() == "held\n"
    finally:
        child.kill()
        child.wait()
    assert state() == "free\n"


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "apf"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_root() == Path.home() / ".cache/apf"
