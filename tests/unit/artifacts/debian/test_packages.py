# SPDX-License-Identifier: GPL-2.0-or-later
"""apt with a private root, against a small mirror in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.artifacts.debian import apt_sources
from harness.artifacts.debian.deb import extract
from harness.artifacts.debian.packages import ListedPackage, Package, Packages, StaleLists, with_packages
from harness.artifacts.store import Store
from harness.errors import BuildFailed, InfraFault, Unsupported
from tests.unit.artifacts.mirror import Mirror


def _publish(mirror: Mirror) -> None:
    mirror.add("app", {"usr/bin/app": b"#!/bin/sh\n"}, version="1:2.0-3", depends="lib (>= 1)")
    mirror.add("lib", {"lib/x86_64-linux-gnu/lib.so": b"lib", "usr/share/doc/lib/copyright": b"c"})
    mirror.add("unrelated", {"usr/bin/other": b""})
    mirror.publish()


def test_resolves_for_an_empty_system_and_downloads(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    told: list[str] = []
    packages = Packages(Store(tmp_path / "cache"), progress=lambda what, done=None: told.append(what))
    found = packages.resolve(["app"])
    assert [(entry.name, entry.version) for entry in found] == [("app", "1:2.0-3"), ("lib", "1.0-1")]
    paths = packages.download(found)
    assert [path.name for path in paths] == ["app_1%3a2.0-3_amd64.deb", "lib_1.0-1_amd64.deb"]
    assert any("downloading 2 packages" in what for what in told)


def test_the_first_answer_is_kept_until_asked_anew(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    store = Store(tmp_path / "cache")
    first = Packages(store).resolve(["lib"])
    Packages(store).download(first)
    mirror.add("lib", {"lib/x86_64-linux-gnu/lib.so": b"newer"}, version="1.1-1")
    mirror.publish()
    assert Packages(store).resolve(["lib"]) == first
    (newer,) = Packages(store, refresh=True).resolve(["lib"])
    assert newer.version == "1.1-1"
    assert Packages(store).resolve(["lib"]) == (newer,)


def test_warm_store_needs_no_mirror(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    store = Store(tmp_path / "cache")
    found = Packages(store).resolve(["app"])
    Packages(store).download(found)
    mirror.root.rename(tmp_path / "gone")
    assert Packages(store).resolve(["app"]) == found
    assert all(path.is_file() for path in Packages(store).download(found))


def test_what_was_built_with_a_package(mirror: Mirror, tmp_path: Path) -> None:
    mirror.add("image", {}, version="2.0-1", depends="kmod (>= 3), binary (= 2.0-1) , other (= 1.0-1) | third")
    mirror.add("image", {}, version="10.0-1", depends="missing, binary (= 10.0-1)")
    mirror.add("binary", {"boot/x": b"old"}, version="2.0-1")
    mirror.add("binary", {"boot/x": b"new"}, version="10.0-1", depends="image (= 10.0-1)")
    mirror.publish()
    store = Store(tmp_path / "cache")
    assert Packages(store).kept_build("image") == ()
    found = Packages(store).build_of("image")
    assert [(entry.name, entry.version) for entry in found] == [("binary", "10.0-1"), ("image", "10.0-1")]
    assert Packages(store).kept_build("image") == found
    assert len(Packages(store).download(found)) == 2
    with pytest.raises(Unsupported, match="lack imag in"):
        Packages(store).build_of("imag")
    assert Packages(store).names("ima") == {"image": ListedPackage("10.0-1")}
    assert Packages(store).names("none-such") == {}


def test_a_damaged_download_is_fetched_again(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    packages = Packages(Store(tmp_path / "cache"))
    found = packages.resolve(["lib"])
    (path,) = packages.download(found)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"?")
    (again,) = packages.download(found)
    assert again.read_bytes() == good


def test_mirror_that_moved_on(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    store = Store(tmp_path / "cache")
    old = Packages(store).resolve(["lib"])
    (mirror.root / "pool/lib_1.0-1_amd64.deb").unlink()
    mirror.paragraphs = [text for text in mirror.paragraphs if not text.startswith("Package: lib\n")]
    mirror.add("lib", {"lib/x": b"newer"}, version="1.1-1")
    mirror.publish()
    with pytest.raises(StaleLists):
        Packages(store).download(old)

    def make(packages: Packages) -> Package:
        found = packages.resolve(["lib"])
        packages.download(found)
        return found[0]

    told: list[str] = []
    assert with_packages(store, "bookworm", lambda what, done=None: told.append(what), make).version == "1.1-1"
    assert any("no longer have" in what for what in told)


def test_machine_that_changed_its_mirror(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was resolved with the old mirror is fetched from the new one."""
    _publish(mirror)
    store = Store(tmp_path / "cache")
    found = Packages(store).resolve(["lib"])
    mirror.root.rename(tmp_path / "moved")
    mirror.root = tmp_path / "moved"
    monkeypatch.setattr(apt_sources, "machine_sources", mirror.sources)
    (path,) = Packages(store).download(found)
    assert path.is_file()


def test_file_that_is_not_what_the_list_says(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    deb = mirror.root / "pool/lib_1.0-1_amd64.deb"
    deb.write_bytes(deb.read_bytes()[:-1] + b"?")
    packages = Packages(Store(tmp_path / "cache"))
    with pytest.raises(InfraFault):
        packages.download(packages.resolve(["lib"]))


def test_unsigned_lists_are_refused(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(mirror)
    monkeypatch.setattr(apt_sources, "machine_sources", lambda: mirror.sources(trusted=False))
    with pytest.raises(InfraFault, match="not signed"):
        Packages(Store(tmp_path / "cache")).resolve(["app"])


def test_suite_that_the_mirror_lacks(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    with pytest.raises(Unsupported, match="do not offer Debian trixie"):
        Packages(Store(tmp_path / "cache"), "trixie").resolve(["app"])


def test_package_that_the_suite_lacks(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    with pytest.raises(Unsupported, match="lack a package"):
        Packages(Store(tmp_path / "cache")).resolve(["linux-image-none"])


def test_extract_merges_usr_and_drops_what_is_not_wanted(mirror: Mirror, tmp_path: Path) -> None:
    deb = mirror.add("lib", {"lib/a.so": b"a", "bin/tool": b"t", "usr/share/doc/x": b"x"})
    tree = tmp_path / "tree"
    tree.mkdir()
    old = os.umask(0o077)
    try:
        extract(deb, tree, lambda path: not path.startswith("usr/share/doc"))
    finally:
        os.umask(old)
    assert (tree / "usr/lib/a.so").read_bytes() == b"a" and (tree / "lib/a.so").exists()
    assert not (tree / "usr/share/doc").exists()
    assert (tree / "usr/bin/tool").stat().st_mode & 0o777 == 0o644


def test_extract_damaged(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"!<arch>\nnonsense")
    (tmp_path / "tree").mkdir()
    with pytest.raises(BuildFailed, match=r"x\.deb"):
        extract(tmp_path / "x.deb", tmp_path / "tree")
