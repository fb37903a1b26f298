# SPDX-License-Identifier: GPL-2.0-or-later
"""A copy of a kernel tree that stays between builds."""

from __future__ import annotations

from pathlib import Path

from harness.artifacts.kernels.kernel_source import files_of, mirror


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
