# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/architecture.md draws what pyproject.toml enforces, and names every folder and every decision that there is."""

from __future__ import annotations

import re
import tomllib

from tests.house.test_house import PYTHON, ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def drawn_layers() -> list[set[str]]:
    """The lines of the block "layers", top first: names up to two spaces, after which a line says what they are."""
    block = re.search(r"^```layers\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    return [set(line.split("  ")[0].split(" | ")) for line in block[1].splitlines()]


def test_the_drawn_layers_are_the_enforced_ones() -> None:
    (layers,) = [contract for contract in CONTRACTS if contract["type"] == "layers"]
    assert layers["exhaustive"]
    assert drawn_layers() == [set(re.split(r" [|:] ", line)) for line in layers["layers"]]


def test_every_wall_is_told() -> None:
    walls = [contract["name"] for contract in CONTRACTS if contract["type"] != "layers"]
    told = re.findall(r"^- \*\*(.+?)\*\*", PAGE.split("Further walls")[1].split("## Folders")[0], re.MULTILINE)
    assert told == walls


def test_every_package_is_in_the_table_of_folders() -> None:
    told = set(re.findall(r"^\| `harness/([\w/]+)` \|", PAGE, re.MULTILINE))
    packages = {"/".join(f.parts[1:-1]) for f in PYTHON if f.parts[0] == "harness" and f.name == "__init__.py"} - {""}
    assert told == packages


def test_every_decision_is_listed() -> None:
    told = set(re.findall(r"\(adr/([\w-]+\.md)\)", PAGE))
    assert told and told <= {path.name for path in (ROOT / "docs/adr").glob("*.md")}


def test_every_package_tells_where_its_tests_are() -> None:
    page = (ROOT / "tests/README.md").read_text()
    told = set(re.findall(r"^\| `harness/([\w/]+)` \|", page, re.MULTILINE))
    packages = {"/".join(f.parts[1:-1]) for f in PYTHON if f.parts[0] == "harness" and f.name == "__init__.py"} - {""}
    assert told == packages
    named = re.findall(r"`((?:unit|house|data)/[\w/.-]+)`", page)
    assert named
    assert not [name for name in named if not (ROOT / "tests" / name).exists()]
