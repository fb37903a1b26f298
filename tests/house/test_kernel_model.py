# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel model is the only place that knows releases, and nothing in it is decoration."""

from __future__ import annotations

import ast
import functools
from dataclasses import fields
from pathlib import Path

import pytest

from harness.model.kernels import KernelModel
from harness.model.protocol.rules import RULES

MODEL = Path(__file__).resolve().parents[2] / "harness" / "model"
HARNESS = MODEL.parent
IDENTITY = {"name", "release"}
"""Fields that say which kernel it is; ``release`` is read as ``version`` and ``as_of``."""


FILES = {str(path.relative_to(HARNESS)): path for path in sorted(HARNESS.rglob("*.py"))}


@functools.cache
def read() -> dict[str, set[str]]:
    """Attribute names that are read, by file."""
    found = {}
    for name, path in FILES.items():
        nodes = ast.walk(ast.parse(path.read_text()))
        found[name] = {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    return found


NEEDED = {rule.needs for rule in RULES.values()}


@pytest.mark.parametrize("name", sorted({f.name for f in fields(KernelModel)} - IDENTITY))
def test_each_behaviour_is_read_outside_its_own_module(name: str) -> None:
    readers = [file for file, names in read().items() if name in names and file != "model/kernels.py"]
    assert readers or name in NEEDED, f"{name} changes nothing: use it or delete it"


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith(("model/", "judge/", "report/", "prediction"))])
def test_no_release_is_looked_at_outside_the_kernel_model(file: str) -> None:
    assert file == "model/kernels.py" or "release" not in read()[file]
