# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches that apply, and messages for those that do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.artifacts.kernels import patches
from harness.errors import BuildFailed, CatalogError

LINES = [f"line {number}\n" for number in range(1, 41)]


def _patch(path: Path, *hunks: tuple[int, str], file: str = "mm/memory.c") -> Path:
    """Replaces whole lines of the example file: (number, what the line is expected to be)."""
    text = f"--- a/{file}\n+++ b/{file}\n"
    for number, expected in hunks:
        text += f"@@ -{number - 1},3 +{number - 1},3 @@\n {LINES[number - 2]}-{expected}\n+new\n {LINES[number]}"
    path.write_text(text)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree/mm").mkdir(parents=True)
    for name in ("memory.c", "filemap.c"):
        (tmp_path / "tree/mm" / name).write_text("".join(LINES))
        os.utime(tmp_path / "tree/mm" / name, (1000, 1000))
    return tmp_path / "tree"


def test_only_the_patched_file_changes(tree: Path, tmp_path: Path) -> None:
    patches.apply(tree, [_patch(tmp_path / "1.patch", (5, "line 5"), (20, "line 20"))])
    assert (tree / "mm/memory.c").read_text().splitlines()[4] == "new"
    assert (tree / "mm/memory.c").stat().st_mtime > 1000
    assert (tree / "mm/filemap.c").stat().st_mtime == 1000


def test_a_hard_link_elsewhere_is_not_written(tree: Path, tmp_path: Path) -> None:
    os.link(tree / "mm/memory.c", tmp_path / "other")
    patches.apply(tree, [_patch(tmp_path / "1.patch", (5, "line 5"))])
    assert (tmp_path / "other").read_text() == "".join(LINES)


def test_failure_names_patch_file_and_hunk(tree: Path, tmp_path: Path) -> None:
    good = _patch(tmp_path / "good.patch", (5, "line 5"))
    bad = _patch(tmp_path / "bad.patch", (10, "line 10"), (20, "something else"))
    with pytest.raises(BuildFailed) as caught:
        patches.apply(tree, [good, bad])
    assert "bad.patch does not apply" in str(caught.value)
    assert "mm/memory.c: hunk 2 (line 19)" in str(caught.value)
    assert "hunk 1" not in str(caught.value)


def test_failure_because_the_file_is_not_there(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="can't find file to patch"):
        patches.apply(tree, [_patch(tmp_path / "p", (5, "line 5"), file="mm/gone.c")])


def test_failure_because_it_is_in_already(tree: Path, tmp_path: Path) -> None:
    patch = _patch(tmp_path / "p", (5, "line 5"))
    patches.apply(tree, [patch])
    with pytest.raises(BuildFailed, match="does not apply"):
        patches.apply(tree, [patch])


def test_no_fuzz(tree: Path, tmp_path: Path) -> None:
    """A patch whose context moved may end up in the wrong place: better no kernel than another one."""
    (tree / "mm/memory.c").write_text("".join(LINES).replace("line 4\n", "changed\n"))
    with pytest.raises(BuildFailed, match="hunk 1"):
        patches.apply(tree, [_patch(tmp_path / "p", (5, "line 5"))])


def test_series(tmp_path: Path) -> None:
    for name in ("b.patch", "a.patch", "c.patch"):
        (tmp_path / name).touch()
    assert [path.name for path in patches.expand([tmp_path])] == ["a.patch", "b.patch", "c.patch"]
    (tmp_path / "series").write_text("# order\nc.patch\na.patch # first\n\n")
    assert [path.name for path in patches.expand([tmp_path])] == ["c.patch", "a.patch"]
    (tmp_path / "series").write_text("d.patch\n")
    with pytest.raises(CatalogError, match=r"d\.patch"):
        patches.expand([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError, match="no patches"):
        patches.expand([tmp_path / "empty"])
