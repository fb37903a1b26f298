# SPDX-License-Identifier: GPL-2.0-or-later
"""The command without its process."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.cli import main
from tests.unit.cli.command import Called, Done


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Called:
    """As apf() in the folder of the test, by a call of what the process calls: each process would load it all anew, for
    half a second to a whole one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APF_ACCEL", "tcg")

    def call(*words: str | Path, **env: str) -> Done:
        with monkeypatch.context() as here:
            for name, value in env.items():
                here.setenv(name, value)
            code = main([*map(str, words)])
        said = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    return call
