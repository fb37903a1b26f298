# SPDX-License-Identifier: GPL-2.0-or-later
"""apf kernels as a person meets it, on a small mirror in a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from harness.artifacts.debian import apt_sources
from harness.cli import kernels, parser
from harness.cli.options import request_of
from harness.errors import CatalogError
from harness.results import Key
from harness.run.repeat_command import repeat_command
from harness.run.request import Request
from harness.run.setup import find_variants
from tests.unit.artifacts.mirror import Mirror


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """A mirror whose sid has three kernels, instead of the machine's."""
    mirror = Mirror(tmp_path / "mirror", "sid")
    mirror.root.mkdir()
    monkeypatch.setattr(apt_sources, "machine_sources", mirror.sources)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for release in ("6.18.5", "6.18.15", "7.3.4"):
        mirror.add(f"linux-image-{release}+deb14-cloud-amd64", {}, version=f"{release}-1")
    mirror.add("linux-image-7.0.13+deb14-cloud-amd64", {}, version="7.0.13-1", depends="gone-7.0.13 (= 7.0.13-1)")
    mirror.publish()
    return mirror


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """What `apf kernels` prints, word by word."""
    parser = argparse.ArgumentParser()
    kernels.add(parser.add_subparsers())
    args = parser.parse_args(["kernels", *words])
    assert args.func(args) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_catalogue_and_mirrors_in_one_table(offered: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    lines = listed(capsys)
    rows = {words[0]: words[1:] for words in lines if words}
    assert rows["debian-6.18"][:5] == ["6.18.15", "nowait-6.18", "(not", "read)", "no"]
    assert rows["debian-7.3"][:3] == ["7.3.4", "nowait-7.3", "no"]
    assert rows["noio-6.1"][1] == "noio-6.1"
    assert ["latest:", "debian-7.3", "(7.3.4)"] in lines
    assert "trixie:" in rows  # the mirror lacks it, which is said
    assert rows["7.0:"] == ["in", "parts", "only,", "the", "mirrors", "lack", "gone-7.0.13", "of", "sid"]
    assert "debian-7.0" not in rows
    assert not [row for row in rows if row.startswith("debian-6.18.")]


def test_a_package_of_the_catalogue_is_at_the_level_that_its_suite_offers(
    offered: Mirror, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not at the one that was read: 6.12.117."""
    mirror = Mirror(offered.root.parent / "stable", "trixie")
    mirror.root.mkdir()
    for release in ("6.12.118", "6.12.99"):
        mirror.add(f"linux-image-{release}+deb13-cloud-amd64", {}, version=f"{release}-1")
    mirror.publish()
    monkeypatch.setattr(apt_sources, "machine_sources", mirror.sources)
    rows = {words[0]: words[1:] for words in listed(capsys) if words}
    assert rows["debian-6.12"][:2] == ["6.12.118", "nowait-6.12"]
    assert rows["debian-6.1"][0] == "6.1.192", "where nobody offers the package, it is the level that was read"


def test_every_level(offered: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [words[0] for words in listed(capsys, "--levels") if words]
    assert {"debian-6.18.5", "debian-6.18.15", "debian-7.3.4", "debian-6.1"} <= set(rows)


def test_the_answer_is_kept_until_it_is_refreshed(offered: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    listed(capsys)
    offered.add("linux-image-7.4.1+deb14-cloud-amd64", {}, version="7.4.1-1")
    offered.publish()
    assert "debian-7.4" not in [words[0] for words in listed(capsys) if words]
    assert "debian-7.4" in [words[0] for words in listed(capsys, "--refresh") if words]


def test_without_a_mirror_the_catalogue_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(apt_sources, "machine_sources", list)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = listed(capsys)
    assert "debian-6.1" in [words[0] for words in lines if words]
    assert ["what", "the", "mirrors", "offer", "is", "not", "known:"] in [words[:7] for words in lines]


def test_a_run_on_the_latest_kernel_says_which_it_is(offered: Mirror, tmp_path: Path) -> None:
    args = parser(("run",)).parse_args(["run", "--guest-kernel", "latest", "--results", str(tmp_path)])
    request = request_of(args, ("latest", "debian-6.1"))
    assert request.kernels == ("debian-7.3", "debian-6.1") and request.guest_kernel == "debian-7.3"
    repeated = repeat_command(request, Key("S01", "debian-6.1"))
    assert repeated is not None and repeated[repeated.index("--guest-kernel") + 1] == "debian-7.3"


def test_a_guest_kernel_that_does_not_exist_is_refused_before_anything_is_made(offered: Mirror) -> None:
    with pytest.raises(CatalogError, match="no kernel 'stock-9'"):
        find_variants(Request(kernels=("debian-6.1",), guest_kernel="stock-9"))
