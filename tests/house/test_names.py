# SPDX-License-Identifier: GPL-2.0-or-later
"""A name means one thing: no public class and no file name occurs twice in harness/.

Names that still do are listed below with how often.  The lists may only become shorter.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

HARNESS = Path(__file__).resolve().parents[2] / "harness"
MODULES = sorted(HARNESS.rglob("*.py"))
# In a command's own module the file is named after the command; these two are Python's own.
COMMANDS = HARNESS / "cli"
OF_PYTHON = ("__init__.py", "__main__.py")

CLASSES_TWICE = {
    "Answer": 2,
    "Backing": 2,
    "Device": 2,
    "Entry": 2,
    "Guest": 2,
    "Memory": 2,
    "Outcome": 2,
    "Request": 2,
    "Rule": 2,
    "State": 2,
    "Step": 2,
    "Work": 2,
}
FILES_TWICE = {"pages.py": 2, "runner.py": 2}


def twice(names: list[str]) -> dict[str, int]:
    return {name: n for name, n in sorted(Counter(names).items()) if n > 1}


def test_no_class_name_means_two_things() -> None:
    found = twice(
        [
            node.name
            for path in MODULES
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        ]
    )
    more = {name: n for name, n in found.items() if n > CLASSES_TWICE.get(name, 1)}
    assert not more, f"rename these classes: {more}"


def test_no_file_name_stands_in_two_folders() -> None:
    found = twice([p.name for p in MODULES if p.name not in OF_PYTHON and COMMANDS not in p.parents])
    more = {name: n for name, n in found.items() if n > FILES_TWICE.get(name, 1)}
    assert not more, f"rename these files: {more}"
