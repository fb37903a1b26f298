# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``apf`` for tests: as a process, or by a call of what the process calls (the fixture ``called``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol, TypeAlias

from tests.unit.waiting import HANG_S

Done: TypeAlias = subprocess.CompletedProcess[str]


class Called(Protocol):
    """See the fixture."""

    def __call__(self, *words: str | Path, **env: str) -> Done: ...


def apf(*words: str | Path, cwd: Path, python: tuple[str, ...] = (), **env: str) -> Done:
    """Run ``apf`` with these words; ``python``: options of the interpreter."""
    return subprocess.run(
        [sys.executable, *python, "-m", "harness.cli", *map(str, words)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "APF_ACCEL": "tcg", **env},
        timeout=HANG_S, check=False,
    )  # fmt: skip


def one_message(done: Done, code: int) -> str:
    """The error message of a run that must have failed politely."""
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("apf: ")
    assert "Traceback" not in done.stderr
    return done.stderr
