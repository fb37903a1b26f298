# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue of kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.artifacts.catalog import SourceKind, find_kernel, load
from harness.artifacts.kernels.built_kernel import banner_of, kernel
from harness.artifacts.store import Store
from harness.errors import CatalogError
from tests.unit.artifacts.mirror import bzimage


def test_ours_is_sound_and_complete() -> None:
    found = load()
    assert {"debian-6.1", "debian-5.10", "debian-6.12", "stock-6.1", "noio-6.1", "mutants-6.1"} <= set(found)
    assert {name for name, entry in found.items() if entry.variant == "noio"} == {
        "noio-6.1",
        "noio-7.3",
        "points-noio-6.1",
    }
    stock, noio = found["stock-6.1"], found["noio-6.1"]
    # What is compared must differ in nothing but the patches.
    assert (stock.package, stock.suite, stock.config) == (noio.package, noio.suite, noio.config)


def test_all_problems_at_once(tmp_path: Path) -> None:
    (tmp_path / "catalog.toml").write_text("""
[a]
source = "package"
suit = "bookworm"
[b]
source = "pacage"
[c]
source = "linux-source"
suite = "bookworm"
package = "p"
config = ["absent.config"]
variant = "noiO"
[d]
source = "bzimage"
path = 3
""")
    with pytest.raises(CatalogError) as caught:
        load(tmp_path / "catalog.toml")
    said = caught.value.message
    assert "a.suit: unknown key; did you mean 'suite'?" in said
    assert "b.source: must be one of" in said
    assert "c.config:" in said and "absent.config does not exist" in said
    assert "c.variant: must be one of sync, noio, nowait" in said
    assert "d.path: must be a string" in said


def test_missing_keys(tmp_path: Path) -> None:
    (tmp_path / "catalog.toml").write_text('[a]\nsource = "package"\nsuite = "bookworm"\n')
    with pytest.raises(CatalogError, match=r"a\.package: missing"):
        load(tmp_path / "catalog.toml")


def test_not_toml(tmp_path: Path) -> None:
    (tmp_path / "catalog.toml").write_text("[a\n")
    with pytest.raises(CatalogError, match=r"catalog\.toml"):
        load(tmp_path / "catalog.toml")


def test_names_and_paths(tmp_path: Path) -> None:
    assert find_kernel("stock-6.1").source is SourceKind.LINUX_SOURCE
    with pytest.raises(CatalogError, match=r"did you mean 'stock-6\.1'"):
        find_kernel("stock-6.2")
    for both in ("debian-6.1,noio-6.1", "debian-6.1 noio-6.1"):
        with pytest.raises(CatalogError, match="there is no kernel 'debian") as told:
            find_kernel(both)
        assert told.value.hint == "each kernel has a --kernel of its own"
    with pytest.raises(CatalogError, match="there is no kernel at"):
        find_kernel("./absent")
    with pytest.raises(CatalogError, match="not a kernel source tree"):
        find_kernel(str(tmp_path))
    (tmp_path / "Kconfig").touch()
    (tmp_path / "Makefile").touch()
    assert find_kernel(str(tmp_path)).source is SourceKind.TREE
    assert find_kernel(str(tmp_path / "Kconfig")).source is SourceKind.BZIMAGE


@pytest.mark.parametrize(
    ("banner", "release", "version"),
    [
        ("6.1.0-56-cloud-amd64 (d@d) #1 SMP Debian 6.1.192-2 (2026-11-16)", "6.1.0-56-cloud-amd64", "6.1.192"),
        ("6.12.117+deb13-cloud-amd64 (d@d) #1 SMP Debian 6.12.117-1", "6.12.117+deb13-cloud-amd64", "6.12.117"),
        ("6.1.192-apf (apf@apf) #1 SMP 1970-01-01", "6.1.192-apf", "6.1.192"),
        ("6.17.0-rc2+ (u@h) #7 SMP", "6.17.0-rc2+", "6.17.0"),
    ],
)
def test_ready_made_kernel(tmp_path: Path, banner: str, release: str, version: str) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(bzimage(banner))
    found = kernel(Store(tmp_path / "cache"), str(path))
    assert (found.release, found.version, found.modules) == (release, version, None)
    assert found.bzimage.read_bytes() == path.read_bytes()


def test_not_a_bzimage(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(CatalogError, match="not a bzImage"):
        banner_of(tmp_path / "x")
