# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that somebody else built: packages, and a bzImage with its modules."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from harness.artifacts import catalog
from harness.artifacts.catalog import SourceKind, find_kernel
from harness.artifacts.kernels import built_kernel, kernel_package
from harness.artifacts.kernels.built_kernel import kernel
from harness.artifacts.kernels.kernel_package import modules_folder, with_its_build
from harness.artifacts.store import Store
from harness.errors import BuildFailed, CatalogError
from tests.unit.artifacts.mirror import Mirror, bzimage

NAME = "7.4.0-mine"
BANNER = f"{NAME} (me@here) #1 SMP"


@pytest.fixture(autouse=True)
def all_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every module: these are none that depmod could read."""

    def every(tree: Path, _wanted: Iterable[str]) -> list[tuple[str, Path]]:
        return [(path.stem, path) for path in sorted(tree.rglob("*.ko"))]

    monkeypatch.setattr(built_kernel, "closure", every)
    monkeypatch.setattr(kernel_package, "closure", every)


def test_one_package_as_make_bindeb_pkg_makes_it(mirror: Mirror, tmp_path: Path) -> None:
    files = {f"boot/vmlinuz-{NAME}": bzimage(BANNER), f"boot/config-{NAME}": b"CONFIG_KVM=m\n",
             f"lib/modules/{NAME}/kernel/kvm.ko": b"kvm"}  # fmt: skip
    deb = mirror.add(f"linux-image-{NAME}", files, depends="kmod (= 30), libc6")
    entry = find_kernel(str(deb))
    assert entry.source is SourceKind.DEB
    built = kernel(Store(tmp_path / "cache"), entry)
    assert (built.release, built.version) == (NAME, "7.4.0")
    assert built.modules is not None and (built.modules / "kvm.ko").read_bytes() == b"kvm"
    assert built.config is not None and built.config.read_text() == "CONFIG_KVM=m\n"


def test_packages_of_one_build_lie_beside_each_other(mirror: Mirror, tmp_path: Path) -> None:
    image = mirror.add(
        "linux-image-x", {}, version="7.4-1", depends="linux-binary-x (= 7.4-1), linux-modules-x (= 7.4-1)"
    )
    mirror.add(
        "linux-binary-x", {f"boot/vmlinuz-{NAME}": bzimage(BANNER)}, version="7.4-1", depends="linux-image-x (= 7.4-1)"
    )
    with pytest.raises(CatalogError, match=r"needs linux-modules-x 7\.4-1, which is not beside it"):
        with_its_build(image)
    mirror.add("linux-modules-x", {f"usr/lib/modules/{NAME}/kvm.ko": b"kvm"}, version="7.4-1")
    mirror.add("linux-modules-x", {f"usr/lib/modules/{NAME}/kvm.ko": b"old"}, version="7.3-1")
    built = kernel(Store(tmp_path / "cache"), find_kernel(str(image)))
    assert built.modules is not None and (built.modules / "kvm.ko").read_bytes() == b"kvm"
    assert built.config is None


def test_a_package_without_a_kernel_is_no_kernel(mirror: Mirror, tmp_path: Path) -> None:
    deb = mirror.add("words", {"usr/share/doc/words": b"x"})
    with pytest.raises(BuildFailed, match="0 kernels in there"):
        kernel(Store(tmp_path / "cache"), find_kernel(str(deb)))
    (tmp_path / "not.deb").write_bytes(b"words")
    with pytest.raises(CatalogError, match="is not a Debian package"):
        with_its_build(tmp_path / "not.deb")


@pytest.mark.parametrize("place", ["modules", f"lib/modules/{NAME}", f"../lib/modules/{NAME}"])
def test_a_bzimage_has_the_modules_that_lie_beside_it(tmp_path: Path, place: str) -> None:
    image = tmp_path / "boot/vmlinuz"
    image.parent.mkdir()
    image.write_bytes(bzimage(BANNER))
    store = Store(tmp_path / "cache")
    assert modules_folder(image, NAME) is None
    assert kernel(store, find_kernel(str(image))).modules is None
    folder = image.parent / place
    folder.mkdir(parents=True)
    (folder / "kvm.ko").write_bytes(b"kvm")
    built = kernel(store, find_kernel(str(image)))
    assert built.modules is not None and (built.modules / "kvm.ko").read_bytes() == b"kvm"
    (folder / "kvm.ko").write_bytes(b"newer")
    again = kernel(store, find_kernel(str(image)))
    assert again.modules is not None and (again.modules / "kvm.ko").read_bytes() == b"newer"


def test_the_running_kernel_is_where_distributions_put_it_or_not_at_all() -> None:
    release = os.uname().release
    there = [p for p in (Path(f"/boot/vmlinuz-{release}"), Path(f"/lib/modules/{release}/vmlinuz")) if p.is_file()]
    if there:
        assert find_kernel(catalog.RUNNING).path == there[0]
    else:
        with pytest.raises(CatalogError, match="is not in /boot"):
            find_kernel(catalog.RUNNING)
