# SPDX-License-Identifier: GPL-2.0-or-later
"""The builder, on a source tree that builds in a blink."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.artifacts.catalog import CatalogKernel, SourceKind
from harness.artifacts.kernels import kbuild
from harness.artifacts.kernels.built_kernel import kernel
from harness.artifacts.store import Store
from harness.errors import BuildFailed, CatalogError, InfraFault
from tests.unit.artifacts.faketree import FRAGMENT, KCONFIG, PATCH, make_tree
from tests.unit.artifacts.mirror import Mirror
from tests.unit.waiting import wait_until


class Teller:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, what: str, done: float | None = None) -> None:
        self.lines.append(what)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kbuild, "_TELL_EVERY", 1)
    monkeypatch.setattr(kbuild, "TOOLS", ("gcc", "make", "patch", "setpriv"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "t@example")


@pytest.fixture
def fragment(tmp_path: Path) -> Path:
    (tmp_path / "base.config").write_text(FRAGMENT)
    return tmp_path / "base.config"


def _packaged(mirror: Mirror, fragment: Path, *patches: Path) -> CatalogKernel:
    """The fake tree as a linux-source package."""
    if not mirror.paragraphs:
        tree = make_tree(mirror.root / "linux-source-6.1")
        archive = mirror.root / "s.tar.xz"
        subprocess.run(["tar", "-cJf", archive, "-C", mirror.root, tree.name], check=True)
        mirror.add("linux-source-6.1", {"usr/src/linux-source-6.1.tar.xz": archive.read_bytes()}, version="6.1.192-1")
        mirror.publish()
    return CatalogKernel(
        f"k{len(patches)}",
        SourceKind.LINUX_SOURCE,
        suite="bookworm",
        package="linux-source-6.1",
        config=(fragment,),
        patches=patches,
    )


def _tree(path: Path, fragment: Path) -> CatalogKernel:
    return CatalogKernel("mine", SourceKind.TREE, path=path, config=(fragment,))


def _compiled(lines: list[str]) -> int:
    return sum("objects" in line for line in lines)


def test_base_then_patched_incrementally(mirror: Mirror, fragment: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    first, second = Teller(), Teller()
    base = kernel(store, _packaged(mirror, fragment), first)
    assert (base.release, base.version, base.modules) == ("6.1.192-apf", "6.1.192", None)
    assert _compiled(first.lines) == 3
    (tmp_path / "p.patch").write_text(PATCH)
    patched = kernel(store, _packaged(mirror, fragment, tmp_path / "p.patch"), second)
    assert patched.release == "6.1.192-apf-k1"
    assert b"memory two" in patched.bzimage.read_bytes()
    assert b"memory two" not in base.bzimage.read_bytes()
    assert _compiled(second.lines) == 1, second.lines
    assert "p.patch" in patched.identity
    # Both are there now, and the base was not harmed.
    third = Teller()
    assert kernel(store, _packaged(mirror, fragment), third) == base
    assert _compiled(third.lines) == 0
    (work,) = (store.root / "work").iterdir()
    assert b"memory 2" in (work / "base/src/mm/memory.c").read_bytes()


def test_patched_builds_its_base_when_there_is_none(mirror: Mirror, fragment: Path, tmp_path: Path) -> None:
    (tmp_path / "p.patch").write_text(PATCH)
    told = Teller()
    patched = kernel(Store(tmp_path / "cache"), _packaged(mirror, fragment, tmp_path / "p.patch"), told)
    assert b"memory two" in patched.bzimage.read_bytes()
    assert _compiled(told.lines) == 3 + 1


def test_patch_that_does_not_apply_leaves_nothing(mirror: Mirror, fragment: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    bad = tmp_path / "bad.patch"
    bad.write_text(PATCH.replace("memory 2", "other"))
    with pytest.raises(BuildFailed, match=r"bad\.patch does not apply.*\n.*mm/memory\.c: hunk 1"):
        kernel(store, _packaged(mirror, fragment, bad))
    assert list((store.root / "store").iterdir()) == []
    # The half-patched copy is not taken for the good one.
    bad.write_text(PATCH)
    assert b"memory two" in kernel(store, _packaged(mirror, fragment, bad)).bzimage.read_bytes()


def test_compiler_error(fragment: Path, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "linux")
    (tree / "mm/bad.c").write_text("BROKEN\n")
    store = Store(tmp_path / "cache")
    with pytest.raises(BuildFailed, match=r"mm/bad\.c:1:1: error: BROKEN is not C"):
        kernel(store, _tree(tree, fragment))
    assert list((store.root / "store").iterdir()) == []
    (tree / "mm/bad.c").write_text("good\n")
    assert b"good" in kernel(store, _tree(tree, fragment)).bzimage.read_bytes()


def test_wish_that_the_source_refuses_names_fragment_and_reason(mirror: Mirror, fragment: Path, tmp_path: Path) -> None:
    fragment.write_text(FRAGMENT + "# holds reads\nCONFIG_NOWHERE=y\n")
    with pytest.raises(BuildFailed, match=r"CONFIG_NOWHERE=y of base\.config became n \(wanted for: holds reads\)"):
        kernel(Store(tmp_path / "cache"), _packaged(mirror, fragment))


def test_a_tree_of_another_version_may_lack_symbols(fragment: Path, tmp_path: Path) -> None:
    fragment.write_text(FRAGMENT + "CONFIG_NOWHERE=y\n")
    told = Teller()
    kernel(Store(tmp_path / "cache"), _tree(make_tree(tmp_path / "linux"), fragment), told)
    assert "this source has no CONFIG_NOWHERE" in told.lines


def test_configuration_without_kvm(fragment: Path, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "linux")
    (tree / "Kconfig").write_text(KCONFIG.replace("config KVM\n", "config OTHER\n"))
    with pytest.raises(BuildFailed, match="no KVM: such a kernel cannot be a host"):
        kernel(Store(tmp_path / "cache"), _tree(tree, fragment))


def test_no_compiler(fragment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_tree(tmp_path / "linux")
    (tmp_path / "bin").mkdir()
    for name in ("make", "patch", "setpriv"):
        (tmp_path / "bin" / name).symlink_to("/usr/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    store = Store(tmp_path / "cache")
    with pytest.raises(InfraFault, match="'gcc' is needed and is not installed"):
        kernel(store, _tree(tree, fragment))
    assert list((store.root / "store").iterdir()) == []


def test_unreadable_tree(fragment: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read"):
        kernel(Store(tmp_path / "cache"), _tree(tmp_path / "absent", fragment))
    tree = make_tree(tmp_path / "linux")
    (tree / ".git").write_text("nonsense")
    with pytest.raises(CatalogError, match="cannot be read"):
        kernel(Store(tmp_path / "cache"), _tree(tree, fragment))


def _git(tree: Path, *words: str) -> None:
    subprocess.run(["git", "-C", tree, *words], check=True, capture_output=True)


def test_users_tree_is_not_written_and_is_built_incrementally(fragment: Path, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "linux")
    _git(tree, "init", "-q")
    _git(tree, "add", ".")
    _git(tree, "commit", "-qm", "one")
    store = Store(tmp_path / "cache")
    before = sorted(str(path) for path in tree.rglob("*") if ".git" not in path.parts)
    first, second, third = Teller(), Teller(), Teller()
    clean = kernel(store, _tree(tree, fragment), first)
    assert "uncommitted" not in clean.identity
    assert _compiled(first.lines) == 3
    (tree / "virt/async_pf.c").write_text("changed\n")
    # Older than all objects: make alone would not see it.
    os.utime(tree / "virt/async_pf.c", (1000, 1000))
    dirty = kernel(store, _tree(tree, fragment), second)
    assert b"changed" in dirty.bzimage.read_bytes()
    assert "uncommitted changes" in dirty.identity
    assert any("uncommitted changes" in line for line in second.lines)
    assert _compiled(second.lines) == 1
    _git(tree, "commit", "-qam", "two")
    by_revision = CatalogKernel("mine", SourceKind.TREE, path=tree, revision="HEAD^", config=(fragment,))
    assert kernel(store, by_revision, third).bzimage == clean.bzimage
    assert sorted(str(path) for path in tree.rglob("*") if ".git" not in path.parts) == before


def test_the_first_build_of_a_tree_starts_from_a_base_of_its_series(
    mirror: Mirror, fragment: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "cache")
    base = kernel(store, _packaged(mirror, fragment))
    tree = make_tree(tmp_path / "linux")
    (tree / "mm/memory.c").write_text("mine\n")
    (tree / "mm/filemap.c").unlink()
    told = Teller()
    own = kernel(store, _tree(tree, fragment), told)
    assert "starting from what is built of 6.1.192" in told.lines
    assert _compiled(told.lines) == 1, told.lines
    assert b"mine" in own.bzimage.read_bytes() and b"async 1" in own.bzimage.read_bytes()
    assert b"filemap" not in own.bzimage.read_bytes()
    (work,) = (store.root / "work").glob("kbuild-tree-*")
    assert (work / "tree/obj/virt/async_pf.o.cmd").read_text() == f"made in {work}/tree/obj\n"
    assert b"memory 2" in base.bzimage.read_bytes()
    again = Teller()
    (tree / "mm/memory.c").write_text("mine, again\n")
    assert b"again" in kernel(store, _tree(tree, fragment), again).bzimage.read_bytes()
    assert _compiled(again.lines) == 1 and not any("starting" in line for line in again.lines)


def test_a_tree_of_another_series_starts_from_nothing(mirror: Mirror, fragment: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    kernel(store, _packaged(mirror, fragment))
    tree = make_tree(tmp_path / "linux")
    (tree / "Makefile").write_text((tree / "Makefile").read_text().replace("PATCHLEVEL = 1", "PATCHLEVEL = 2"))
    told = Teller()
    assert kernel(store, _tree(tree, fragment), told).version == "6.2.192"
    assert _compiled(told.lines) == 3 and not any("starting" in line for line in told.lines)


def test_revision_that_is_not_checked_out(fragment: Path, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "linux")
    _git(tree, "init", "-q")
    _git(tree, "add", ".")
    _git(tree, "commit", "-qm", "one")
    (tree / "mm/filemap.c").write_text("second\n")
    _git(tree, "commit", "-qam", "two")
    store = Store(tmp_path / "cache")
    old = kernel(store, CatalogKernel("o", SourceKind.TREE, path=tree, revision="HEAD^", config=(fragment,)))
    new = kernel(store, CatalogKernel("o", SourceKind.TREE, path=tree, revision="HEAD", config=(fragment,)))
    assert b"filemap 1" in old.bzimage.read_bytes() and b"second" not in old.bzimage.read_bytes()
    assert b"second" in new.bzimage.read_bytes()
    with pytest.raises(CatalogError, match="no revision 'nowhere'"):
        kernel(store, CatalogKernel("o", SourceKind.TREE, path=tree, revision="nowhere", config=(fragment,)))


_RUN = """
import sys
from pathlib import Path
from harness.artifacts.kernels import kbuild
from harness.artifacts.catalog import CatalogKernel, SourceKind
from harness.artifacts.kernels.built_kernel import kernel
from harness.artifacts.store import Store
kbuild.TOOLS = ()
tree, fragment, cache = map(Path, sys.argv[1:])
kernel(Store(cache), CatalogKernel("mine", SourceKind.TREE, path=tree, config=(fragment,)))
"""


def test_killed_build_takes_make_with_it_and_goes_on_later(fragment: Path, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "linux")
    (tree / "virt/zz.c").write_text("SLOW\n")
    cache = tmp_path / "cache"
    runner = subprocess.Popen([sys.executable, "-c", _RUN, tree, fragment, cache])
    objects = cache / "work"

    def builds() -> bool:
        assert runner.poll() is None
        return (tmp_path / "slow").exists() and len(list(objects.rglob("*.o"))) >= 3

    wait_until(builds, "a build that is at its slow file")
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    # make holds the lock as long as it lives, and it does not live on.
    store, told = Store(cache), Teller()
    (tmp_path / "fast").touch()
    built = kernel(store, _tree(tree, fragment), told)
    assert b"SLOW" in built.bzimage.read_bytes()
    assert _compiled(told.lines) == 1, told.lines


def test_warnings_are_kept(tmp_path: Path, fragment: Path) -> None:
    tree = make_tree(tmp_path / "linux")
    (tree / "mm/w.c").write_text("CAREFUL\n")
    built = kernel(Store(tmp_path / "cache"), _tree(tree, fragment))
    assert "warning: careful" in (built.bzimage.parent / "build.log").read_text()
