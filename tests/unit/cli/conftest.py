# SPDX-License-Identifier: GPL-2.0-or-later
"""The command without its process."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import main
from tests.unit.cli.command import Called, Done


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Called]:
    """As apf() in the folder of the test, by a call of what the process calls: each process would load it all anew, for
    half a second to a whole one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APF_ACCEL", "tcg")
    before = signal.getsignal(signal.SIGTERM)

    def call(*words: str | Path, **env: str) -> Done:
        with monkeypatch.context() as here:
            for name, value in env.items():
                here.setenv(name, value)
            try:
                code = main([*map(str, words)])
            except SystemExit as ended:  # argparse's
                code = ended.code if isinstance(ended.code, int) else 1
        said = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    yield call
    signal.signal(signal.SIGTERM, before)
