# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernels the mirrors offer, asked of a small mirror in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.artifacts.catalog import SourceKind, find_kernel
from harness.artifacts.debian.offered_kernels import OfferedKernel, find, kernels_among, offer
from harness.artifacts.debian.packages import Packages
from harness.artifacts.kernels.built_kernel import is_stored, kernel
from harness.artifacts.store import Store
from harness.errors import CatalogError, InfraFault, Unsupported
from tests.unit.artifacts.mirror import Mirror, bzimage


def _names(*versions: tuple[str, str]) -> list[str]:
    return [kernel.release for kernel in kernels_among("sid", dict(versions))]


def test_only_kernels_for_virtual_machines_and_their_releases() -> None:
    assert _names(
        ("linux-image-6.1.0-56-cloud-amd64", "6.1.192-2"),
        ("linux-image-6.1.0-56-cloud-amd64-unsigned", "6.1.192-2"),
        ("linux-image-6.1.0-56-rt-amd64", "6.1.192-2"),
        ("linux-image-cloud-amd64", "6.1.192-2"),
        ("linux-image-7.3-cloud-amd64", "7.3~rc7-1~exp1"),
        ("linux-image-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1"),
        ("linux-image-9-cloud-amd64", "odd"),
    ) == ["6.1.192", "7.3-rc7", "7.3.4"]


def test_a_release_candidate_is_before_its_release() -> None:
    releases = ["7.3.1", "7.3", "6.18.15", "7.3-rc7", "7.3-rc10", "6.18.5", "5.10.262"]
    made = sorted((OfferedKernel("sid", "", release, "") for release in releases), key=lambda kernel: kernel.order)
    assert [k.release for k in made] == ["5.10.262", "6.18.5", "6.18.15", "7.3-rc7", "7.3-rc10", "7.3", "7.3.1"]
    assert [k.series for k in made][-3:] == ["7.3", "7.3", "7.3"]


def _publish(mirror: Mirror) -> None:
    mirror.suite = "trixie-backports"
    for release in ("6.18.5", "6.18.15", "7.3.4"):
        name = f"{release}+deb13-cloud-amd64"
        banner = f"{name} (d@d) #1 SMP Debian {release}-1"
        version = f"{release}-1"
        mirror.add(f"linux-image-{name}", {}, version=version, depends=f"kmod, linux-binary-{name} (= {version})")
        files = {f"boot/vmlinuz-{name}": bzimage(banner), f"boot/config-{name}": b"CONFIG_KVM=m\n"}
        mirror.add(f"linux-binary-{name}", files | {f"usr/lib/modules/{name}/modules.dep": b""}, version=version)
    mirror.publish()


def test_names_mean_the_newest_of_a_series_one_level_or_the_newest_of_all(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    store = Store(tmp_path / "cache")
    found = offer(store)
    assert list(found.series()) == ["debian-6.18", "debian-7.3"]
    for name, release in (("debian-6.18", "6.18.15"), ("debian-6.18.5", "6.18.5"), ("latest", "7.3.4")):
        named = find(store, name)
        assert named is not None and (named.release, named.suite) == (release, "trixie-backports")
    assert find(store, "debian-6.19") is None and find(store, "stock-6.18") is None
    assert "bookworm" in found.without  # a suite that the mirror lacks is told, and no error


def test_the_answer_is_kept_until_asked_anew(mirror: Mirror, tmp_path: Path) -> None:
    _publish(mirror)
    store = Store(tmp_path / "cache")
    first = offer(store)
    mirror.root.rename(tmp_path / "gone")
    assert offer(store) == first
    with pytest.raises(InfraFault, match="no Debian suite"):
        offer(store, refresh=True)


def test_a_kernel_of_several_packages_is_one_kernel(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(mirror)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("harness.artifacts.kernels.kernel_package.closure", lambda *_: ())
    monkeypatch.setattr("harness.artifacts.kernels.built_kernel._NAMES_ONLY_BYTES", 0)
    store = Store()
    entry = find_kernel("debian-6.18.5")
    assert (entry.source, entry.release, entry.id) == (SourceKind.PACKAGE, "6.18.5", "debian-6.18.5")
    assert not is_stored(store, entry)
    built = kernel(store, entry)
    assert (built.version, built.release) == ("6.18.5", "6.18.5+deb13-cloud-amd64")
    assert built.identity == "linux-image-6.18.5+deb13-cloud-amd64 6.18.5-1"
    assert is_stored(store, entry)
    assert find_kernel("latest").id == "debian-7.3"
    with pytest.raises(CatalogError, match="no mirror of this machine offers it"):
        find_kernel("debian-6.19")


def test_a_series_whose_level_left_the_mirror_is_its_next_level(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(mirror)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("harness.artifacts.kernels.kernel_package.closure", lambda *_: ())
    monkeypatch.setattr("harness.artifacts.kernels.built_kernel._NAMES_ONLY_BYTES", 0)
    series, level = find_kernel("debian-6.18"), find_kernel("debian-6.18.15")
    mirror.paragraphs = [text.replace("6.18.15", "6.18.16") for text in mirror.paragraphs]
    for deb in list((mirror.root / "pool").glob("*6.18.15*")):
        deb.unlink()
    mirror.paragraphs = [text for text in mirror.paragraphs if "6.18.16" not in text]
    name = "6.18.16+deb13-cloud-amd64"
    files = {f"boot/vmlinuz-{name}": bzimage(f"{name} #1 Debian 6.18.16-1"), f"boot/config-{name}": b""}
    mirror.add(f"linux-image-{name}", files | {f"usr/lib/modules/{name}/x": b""}, version="6.18.16-1")
    mirror.publish()
    assert kernel(Store(), series).version == "6.18.16"
    with pytest.raises(Unsupported, match=r"lack linux-image-6\.18\.15"):
        kernel(Store(), level)


def test_what_lost_a_part_of_its_build_is_not_offered(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As trixie-backports keeps linux-image-7.0.13, but no longer its modules; System.map and config may be missing."""
    mirror.suite = "sid"
    for release, needs in (
        ("7.0.13", "linux-modules-7.0.13"),
        ("6.18.15", "linux-base-6.18.15"),
        ("7.1.1", "linux-image-7.0.13"),
    ):
        version = f"{release}-1"
        same = version if release != "7.1.1" else "7.0.13-1"
        mirror.add(f"linux-image-{release}-cloud-amd64", {}, version=version, depends=f"{needs}-cloud-amd64 (= {same})")
    mirror.publish()
    store = Store(tmp_path / "apf")
    fresh, kept = offer(store), offer(store)
    assert [kernel.release for kernel in fresh.kernels] == ["6.18.15", "7.1.1"]
    assert fresh.lacking == kept.lacking == {"7.0": "linux-modules-7.0.13-cloud-amd64 of sid"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("debian-7.0", "debian-7.0.13"):
        with pytest.raises(CatalogError, match=r"of 7\.0 they lack linux-modules-7\.0\.13-cloud-amd64 of sid"):
            find_kernel(name)
    with pytest.raises(CatalogError, match=r"offers it\n"):
        find_kernel("debian-6.19")
    assert [p.name for p in Packages(store, "sid").build_of("linux-image-6.18.15-cloud-amd64")] == [
        "linux-image-6.18.15-cloud-amd64"
    ]
