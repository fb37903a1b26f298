# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/security.md names a test for each line of defence, and each of them exists."""

from __future__ import annotations

import ast
import re

from tests.house.test_house import ROOT

PAGE = (ROOT / "docs/security.md").read_text()
TABLE = [line for line in PAGE.split("## Lines of defence")[1].split("## ")[0].splitlines() if line.startswith("| ")]
LINES = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TABLE if not line.startswith("|---")][1:]


def test_each_line_has_a_test_that_exists() -> None:
    assert len(LINES) > 15
    for threat, what, tests in LINES:
        assert threat and what
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", tests)
        assert named, threat
        for path, name in named:
            tree = ast.parse((ROOT / "tests/unit" / path).read_text())
            functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert name in functions, f"{path} has no {name}"
