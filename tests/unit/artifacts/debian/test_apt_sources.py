# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's Debian mirrors, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.artifacts.debian.apt_sources import machine_sources, parse_list, parse_sources, sources_for
from harness.errors import Unsupported

LIST = """
# deb http://mirror.example/commented bookworm main
deb [signed-by=/usr/share/keyrings/k.gpg arch=amd64,i386] http://mirror.example/debian bookworm main contrib # why
deb-src http://mirror.example/debian bookworm main
deb http://mirror.example/debian-security/ bookworm-security main
deb http://third.example/apt bookworm-pgdg main
deb http://third.example/linux/debian bookworm stable
"""
DEB822 = """Types: deb deb-src
URIs: http://a.example/debian http://b.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://c.example/debian
Suites: trixie
Components: main
Enabled: no

Types: deb-src
URIs: http://d.example/debian
Suites: bookworm
Components: main
"""


def test_one_line_style() -> None:
    first, *others = parse_list(LIST)
    assert (first.uri, first.suite, first.components) == (
        "http://mirror.example/debian",
        "bookworm",
        ("main", "contrib"),
    )
    assert dict(first.options) == {"Signed-By": "/usr/share/keyrings/k.gpg", "Arch": "amd64 i386"}
    assert [source.pocket for source in others] == ["-security", None, ""]
    assert others[-1].components == ("stable",)


def test_deb822_style() -> None:
    found = parse_sources(DEB822)
    assert [(source.uri, source.suite) for source in found] == [
        ("http://a.example/debian", "bookworm"),
        ("http://a.example/debian", "bookworm-updates"),
        ("http://b.example/debian", "bookworm"),
        ("http://b.example/debian", "bookworm-updates"),
    ]
    assert "BEGIN PGP" in dict(found[0].options)["Signed-By"]
    assert parse_sources(found[0].deb822()) == [found[0]]


def test_another_release_on_the_same_mirrors(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(LIST)
    (tmp_path / "sources.list.d/more.sources").write_text(DEB822)
    (tmp_path / "sources.list.d/off.list.disabled").write_text("deb http://off.example/debian bookworm main\n")
    found = sources_for("bullseye", machine_sources(tmp_path))
    assert [(source.uri, source.suite) for source in found] == [
        ("http://mirror.example/debian", "bullseye"),
        ("http://mirror.example/debian-security/", "bullseye-security"),
        ("http://a.example/debian", "bullseye"),
        ("http://a.example/debian", "bullseye-updates"),
        ("http://b.example/debian", "bullseye"),
        ("http://b.example/debian", "bullseye-updates"),
    ]
    assert {source.components for source in found} == {("main",)}


def test_no_debian_here() -> None:
    with pytest.raises(Unsupported, match="no Debian mirror"):
        sources_for("bookworm", parse_list("deb http://u.example/ubuntu noble main\n"))


def test_backports_and_rolling_suites_have_no_updates_of_their_own() -> None:
    machine = [*parse_list(LIST), *parse_sources(DEB822)]
    for suite in ("trixie-backports", "sid", "experimental"):
        assert {source.suite for source in sources_for(suite, machine)} == {suite}
    assert {source.suite for source in sources_for("trixie", machine)} >= {"trixie", "trixie-updates"}
