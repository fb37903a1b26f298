# SPDX-License-Identifier: GPL-2.0-or-later
"""ext4 images: the same bytes whoever makes them, whenever; and sound ones."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.artifacts.images import ext4
from harness.errors import BuildFailed


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/usr/sbin:/sbin")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("e2fsprogs is not installed")
    old = os.umask(0o022)
    yield
    os.umask(old)


def _tree(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(name.encode() * 5000)
        (folder / name).chmod(0o644)
    (folder / "sub").mkdir()
    (folder / "sub/deep").write_text("x")
    (folder / "sub/deep").chmod(0o755)
    (folder / "sub").chmod(0o755)
    (folder / "link").symlink_to("a")
    folder.chmod(0o755)
    return folder


def _image(tree: Path, name: str) -> Path:
    image = tree.parent / name
    ext4.make(tree, image, label="test")
    return image


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_bytes_at_another_time_by_another_owner_under_another_umask(tmp_path: Path) -> None:
    names = ["a", "b", "zz", "hello"]
    first = _image(_tree(tmp_path / "one", names), "one.img")
    time.sleep(1.1)  # times in inodes have whole seconds, too
    os.umask(0o077)
    other = _tree(tmp_path / "two", names[::-1])
    if os.geteuid() == 0:
        for path in [other, *other.rglob("*")]:
            os.chown(path, 1234, 5678, follow_symlinks=False)
    second = _image(other, "two.img")
    assert _sha(first) == _sha(second)


def test_contents_matter(tmp_path: Path) -> None:
    assert _sha(_image(_tree(tmp_path / "one", ["a"]), "1")) != _sha(_image(_tree(tmp_path / "two", ["b"]), "2"))


def test_sound_and_owned_by_root(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "one", ["a", "b"])
    if os.geteuid() == 0:
        os.chown(tree / "a", 1234, 5678)
    image = _image(tree, "image")
    subprocess.run(["e2fsck", "-fn", str(image)], check=True, capture_output=True)
    words = ["debugfs", "-R", "ls -l /", str(image)]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    rows = {row[-1]: row for row in (line.split() for line in listed.splitlines()) if row}
    assert rows["a"][1] == "100644" and rows["a"][3:6] == ["0", "0", "5000"]
    assert rows["link"][1] == "120777"
    words = ["debugfs", "-R", "cat /sub/deep", str(image)]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "x"


def test_many_files_fit(tmp_path: Path) -> None:
    """The size is guessed from the tree: many small files, folders and a large one must fit."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(2000):
        (tree / f"{number}").write_bytes(b"x" * (number % 9000))
    (tree / "large").write_bytes(bytes(1) * (40 << 20))
    for number in range(300):
        (tree / f"folder{number}").mkdir()
    subprocess.run(["e2fsck", "-fn", str(_image(tree, "image"))], check=True, capture_output=True)


def test_failure_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"mkfs\.ext4"):
        ext4.make(_tree(tmp_path / "one", ["a"]), tmp_path / "absent" / "image", label="x")
