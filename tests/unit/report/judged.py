# SPDX-License-Identifier: GPL-2.0-or-later
"""Golden captures, judged, with all that drawings need."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from harness.judge.verdict import JudgedCapture, judge_whole
from harness.model.kernels import find_kernel

DATA = Path(__file__).parents[2] / "data"
MODELS = {"captures": "nowait-6.1", "captures-noio": "noio-6.1"}


def files_of(folder: str, name: str) -> dict[str, bytes]:
    root = DATA / folder / name
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@cache
def golden(folder: str, name: str) -> JudgedCapture:
    return judge_whole(files_of(folder, name), find_kernel(MODELS[folder]))
