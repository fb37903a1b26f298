# SPDX-License-Identifier: GPL-2.0-or-later
"""The files below kernels/ agree with each other: fragments, series and the description of the mutants."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "kernels"
SERIES = sorted(path for path in (KERNELS / "patches").rglob("series"))
MUTANTS = sorted(path.parent for path in (KERNELS / "patches/mutants").glob("*/series"))
FRAGMENTS = sorted((KERNELS / "config").glob("*.config"))
SETTING = re.compile(r'CONFIG_[A-Z0-9_]+=(?:y|\d+|"[^"]*")|# CONFIG_[A-Z0-9_]+ is not set')
IGNORED = re.compile(r"#.*|")


def symbol(line: str) -> str:
    """The configuration symbol that a line of a fragment sets or leaves unset."""
    found = re.search(r"CONFIG_[A-Z0-9_]+", line)
    assert found is not None
    return found.group()


def test_there_is_something_to_check() -> None:
    assert {path.parent.name for path in SERIES} >= {"noio-6.1", "noio-7.3", "6.1", "7.3"}
    assert {path.name for path in MUTANTS} >= {"6.1", "7.3"}
    assert {path.name for path in FRAGMENTS} >= {"base.config", "debug.config", "devport.config", "hardened.config"}


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda path: path.name)
def test_fragment_sets_each_symbol_once_and_builds_no_module(fragment: Path) -> None:
    settings = []
    for number, line in enumerate(fragment.read_text().splitlines(), 1):
        if SETTING.fullmatch(line):
            settings.append(symbol(line))
        else:
            assert IGNORED.fullmatch(line), f"{fragment.name}:{number}: {line}"
    assert len(settings) > 10 or fragment.name in ("devport.config", "hardened.config")
    assert settings
    assert sorted(settings) == sorted(set(settings))


@pytest.mark.parametrize("series", SERIES, ids=lambda path: str(path.parent.relative_to(KERNELS)))
def test_series_lists_all_patches_in_order(series: Path) -> None:
    listed = series.read_text().split()
    assert listed == sorted(path.name for path in series.parent.glob("*.patch"))
    for number, name in enumerate(listed, 1):
        assert name.startswith(f"{number:04}-")


@pytest.mark.parametrize("series", SERIES, ids=lambda path: path.parent.name)
def test_patch_headers_say_what_and_why(series: Path) -> None:
    for name in series.read_text().split():
        text = (series.parent / name).read_text()
        subject = re.search(r"^Subject: \[PATCH\] (.+)$", text, re.MULTILINE)
        assert subject is not None, name
        body = text.split("\n\n", 1)[1].split("\n---\n", 1)[0]
        assert len(body.split()) >= 30, f"{name}: the message explains nothing"


def mutants_of_the_patches(folder: Path) -> dict[str, int]:
    """Name and value of each enumerator of enum apf_mutant: the first patch adds it, later ones append to it."""
    texts = [path.read_text() for path in sorted(folder.glob("*.patch"))]
    assert "\n+enum apf_mutant {\n+\tAPF_MUTANT_NONE,\t" in texts[0]
    names = re.findall(r"^\+\tAPF_MUTANT_(\w+),", "\n".join(texts), re.MULTILINE)
    assert names[0] == "NONE"
    return {name: value for value, name in enumerate(names) if value}


@pytest.mark.parametrize("folder", MUTANTS, ids=lambda path: path.name)
def test_every_mutant_is_described_and_numbered_as_in_the_kernel(folder: Path) -> None:
    described = tomllib.loads((KERNELS / "patches/mutants/MUTANTS.toml").read_text())
    assert {name: entry["number"] for name, entry in described.items()} == mutants_of_the_patches(folder)
    for name, entry in described.items():
        assert entry["about"].endswith("."), name
        assert entry["imitates"], name
        assert all(re.fullmatch(r"S\d{2,3}[A-Z]?", scenario) for scenario in entry["scenarios"]), name
        assert entry["scenarios"], name
        assert all(re.fullmatch(r"D\d{2}|[a-z-]+:\w+", rule) for rule in entry["rules"]), name
        assert entry["rules"], name
        assert set(entry) <= {"number", "about", "imitates", "scenarios", "rules", "hangs"}, name


@pytest.mark.parametrize("folder", MUTANTS, ids=lambda path: path.name)
def test_every_mutant_is_made_somewhere(folder: Path) -> None:
    made = set()
    for patch in folder.glob("*.patch"):
        for line in patch.read_text().splitlines():
            if line.startswith("+"):
                made.update(re.findall(r"apf_mutant_is\(([A-Z0-9_]+)\)", line))
    assert made == set(mutants_of_the_patches(folder))
