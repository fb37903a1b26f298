# SPDX-License-Identifier: GPL-2.0-or-later
"""A copy of a kernel tree that stays between builds."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.artifacts.kernels.kernel_source import checkout, copy_of, files_of, inspect, inspect_revision, mirror
from harness.errors import CatalogError


def copied(tree: Path, copy: Path, **content: str) -> set[str]:
    """The copy's files when the tree has these alone ("a__b": the file b in the folder a)."""
    for path in sorted(tree.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for name, text in content.items():
        target = tree / name.replace("__", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    mirror(tree, files_of(tree), copy)
    assert all((copy / name).read_text() == (tree / name).read_text() for name in files_of(copy))
    return set(files_of(copy))


def test_a_file_becomes_a_folder_and_a_folder_a_file(tmp_path: Path) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    tree.mkdir()
    assert copied(tree, copy, a="1", b__c__d="2", b__e="3") == {"a", "b/c/d", "b/e"}
    assert copied(tree, copy, a__x="4", b="5") == {"a/x", "b"}
    assert copied(tree, copy, a="6", b__c="7") == {"a", "b/c"}


def git(tree: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(tree), *who, *words], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("in_git", [True, False])
def test_a_tree_that_was_edited_since_it_was_read_is_not_kept_under_its_old_digest(
    tmp_path: Path, in_git: bool
) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    tree.mkdir()
    (tree / "a.c").write_text("1")
    if in_git:
        git(tree, "init", "-q")
        git(tree, "add", ".")
        git(tree, "commit", "-qm", "a")
    state = inspect(tree)
    copy_of(state, tree, copy)
    assert (copy / "a.c").read_text() == "1"
    (tree / "a.c").write_text("2")
    with pytest.raises(CatalogError, match=r"changed while its build was prepared.*run the command again"):
        copy_of(state, tree, copy)
    copy_of(inspect(tree), tree, copy)
    assert (copy / "a.c").read_text() == "2"


def test_a_branch_that_moves_does_not_change_what_is_built_of_it(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    tree.mkdir()
    out.mkdir()
    git(tree, "init", "-q")
    for text in ("1", "2"):
        (tree / "a.c").write_text(text)
        git(tree, "add", ".")
        git(tree, "commit", "-qm", text)
        if text == "1":
            state = inspect_revision(tree, "HEAD")
    checkout(tree, state.commit, out)
    assert (out / "a.c").read_text() == "1"
