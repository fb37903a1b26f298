# SPDX-License-Identifier: GPL-2.0-or-later
"""Ctrl-C, SIGTERM and SIGHUP at moments that are caused: one message, one exit code, and all is tidied up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from harness.cli import main, shell
from harness.run.ending import ENDING

ROOT = Path(__file__).parents[3]

_STRUCK = """
import atexit, os, signal, sys
from harness import cli
from harness.run import ending

for number in ending.ENDING:
    signal.signal(number, signal.SIG_DFL)
def strike():
    os.kill(os.getpid(), signal.Signals[sys.argv[1]])
{when}
sys.exit(cli.main(["kernels", "--help"]))
"""
_ENDED = "atexit.register(strike)"
_BEGUN = """
def struck(*_args):
    try:
        strike()
    finally:
        strike()
cli.parser = struck
"""


def struck(when: str, which: signal.Signals) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _STRUCK.format(when=when), which.name], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("which", ENDING)
def test_who_has_ended_has_his_exit_code(which: signal.Signals) -> None:
    done = struck(_ENDED, which)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("which", ENDING)
def test_who_is_struck_twice_is_interrupted_once(which: signal.Signals) -> None:
    done = struck(_BEGUN, which)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "apf: interrupted" and len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("words", [["--ssh"], ["--lab", "lab.toml"]])
def test_a_shell_that_is_struck_twice_leaves_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    gone = []

    @contextlib.contextmanager
    def host(*_args: object, **_more: object) -> Iterator[object]:
        try:
            yield Mock()
        finally:
            signal.raise_signal(signal.SIGINT)
            gone.append("the host")

    def keep(*_args: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("nobody heard it")

    monkeypatch.setattr(shell, "start_shell_host", host)
    monkeypatch.setattr(shell, "_keep", keep)
    monkeypatch.setattr(shell, "lab_entry", lambda *_args: None)
    monkeypatch.setattr(shell, "lab_text", lambda *_args: "")
    assert main(["shell", *words]) == 0
    assert gone == ["the host"]
    assert "Traceback" not in capfd.readouterr().err
