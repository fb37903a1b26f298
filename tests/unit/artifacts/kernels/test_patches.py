# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches that apply, and messages for those that do not."""

from __future__ import annotations

import base64
import os
import quopri
from pathlib import Path

import pytest

from harness.artifacts.kernels import patches
from harness.errors import BuildFailed, CatalogError

DATA = Path(__file__).parents[3] / "data/mbox"
KERNELS = Path(__file__).parents[4] / "kernels"
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
    assert "patch 2 of 2, bad.patch, does not apply to tree" in str(caught.value)
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


def _mail(subject: str, body: str, *, encoding: str = "8bit") -> bytes:
    """A mail as git format-patch writes it into a mailbox."""
    if encoding == "base64":
        body = base64.encodebytes(body.encode()).decode()
    elif encoding == "quoted-printable":
        body = quopri.encodestring(body.encode()).decode()
    return (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: A B <a@b.example>\n"
        f"Subject: {subject}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n"
        f"Content-Transfer-Encoding: {encoding}\n\n{body}\n"
    ).encode()


def test_a_mailbox_of_git_format_patch(tmp_path: Path) -> None:
    """Written by `git format-patch -v2 --cover-letter --stdout` of two commits on 7.3: long subjects are folded."""
    first, second = patches.split_mbox(DATA / "v2_series.mbx", tmp_path)
    assert first.name == "0001-KVM-x86-End-an-artificial-halt-when-its-page-ready-event-is-.patch"
    assert second.name == "0002-KVM-x86-Make-an-asynchronous-PF-VM-Exit-before-userspace-see.patch"
    for path, name in ((first, "apf-halted"), (second, "vmexit-state")):
        (fix,) = (KERNELS / f"patches/fixes/{name}/7.3").glob("*.patch")
        assert _changes(path) == _changes(fix)


def _changes(patch: Path) -> list[str]:
    """The lines that a patch puts in or takes out, and in which file; hunks may have other context."""
    text = patch.read_text().partition("\ndiff --git")[2].partition("\n-- \n")[0]
    return [line for line in text.splitlines() if line.startswith(("+", "-"))]


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_a_mailbox_is_its_patches_in_the_order_of_the_series(tree: Path, tmp_path: Path, encoding: str) -> None:
    first = _patch(tmp_path / "1", (5, "line 5")).read_text()
    second = _patch(tmp_path / "2", (20, "line 20")).read_text()
    mbox = tmp_path / "series.mbx"
    mbox.write_bytes(
        _mail("[PATCH v3 0/2] KVM: words", "Nothing is changed here.")
        + _mail("[PATCH v3 2/2] KVM: the second,\n of two", f"From the list, é = x.\n---\n{second}", encoding=encoding)
        + _mail("[PATCH v3 1/2] KVM: the first", f"Why.\n---\n{first}--\n2.39.5\n", encoding=encoding)
    )
    (tmp_path / "out").mkdir()
    found = patches.split_mbox(mbox, tmp_path / "out")
    assert [path.name for path in found] == ["0001-KVM-the-first.patch", "0002-KVM-the-second-of-two.patch"]
    patches.apply(tree, found)
    lines = (tree / "mm/memory.c").read_text().splitlines()
    assert (lines[4], lines[19], lines[9]) == ("new", "new", "line 10")


def test_a_patch_of_a_mailbox_that_does_not_apply_is_named_with_its_base(tree: Path, tmp_path: Path) -> None:
    bad = _patch(tmp_path / "2", (20, "something else")).read_text()
    (tmp_path / "m").write_bytes(_mail("[PATCH 1/1] mm: bad", bad) + _mail("mm: also", bad))
    (tmp_path / "out").mkdir()
    with pytest.raises(BuildFailed) as caught:
        patches.apply(tree, patches.split_mbox(tmp_path / "m", tmp_path / "out"), "linux-source-7.3 7.3.4-1")
    assert "patch 1 of 2, 0001-mm-bad.patch, does not apply to linux-source-7.3 7.3.4-1" in str(caught.value)
    assert "mm/memory.c: hunk 1 (line 19)" in str(caught.value)


def test_a_series_is_tried_without_touching_the_tree(tree: Path, tmp_path: Path) -> None:
    first = _patch(tmp_path / "1.patch", (5, "line 5"))
    second = tmp_path / "2.patch"
    second.write_text("--- a/mm/memory.c\n+++ b/mm/memory.c\n@@ -4,3 +4,3 @@\n line 4\n-new\n+newer\n line 6\n")
    new = tmp_path / "3.patch"
    new.write_text("--- /dev/null\n+++ b/mm/fresh.c\n@@ -0,0 +1 @@\n+x\n")
    patches.try_on(tree, [first, second, new], "base")
    assert (tree / "mm/memory.c").read_text() == "".join(LINES) and not (tree / "mm/fresh.c").exists()
    with pytest.raises(BuildFailed, match=r"patch 1 of 2, 2\.patch, does not apply to base"):
        patches.try_on(tree, [second, first], "base")


def test_what_is_no_mailbox_is_one_patch_and_an_empty_one_none(tmp_path: Path) -> None:
    plain = _patch(tmp_path / "1.patch", (5, "line 5"))
    assert patches.split_mbox(plain, tmp_path) == [plain]
    (tmp_path / "words").write_bytes(_mail("[PATCH 0/1] only words", "none"))
    with pytest.raises(CatalogError, match="no mail in it changes anything"):
        patches.split_mbox(tmp_path / "words", tmp_path)
    with pytest.raises(CatalogError, match="absent"):
        patches.split_mbox(tmp_path / "absent", tmp_path)
