# SPDX-License-Identifier: GPL-2.0-or-later
"""Who reads a verdict later can tell which harness gave it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness import __version__
from harness.cli import main
from harness.run import own_version as module
from harness.run.own_version import own_version


def test_the_commit_and_whether_something_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPOSITORY", tmp_path)
    assert own_version() == f"apf {__version__}"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"], ["tag", "v7"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert own_version() == f"apf {__version__}, commit {head[:12]}"
    (tmp_path / "file").write_text("2")
    assert own_version() == f"apf {__version__}, commit {head[:12]}+"
    (tmp_path / "inner").mkdir()
    monkeypatch.setattr(module, "REPOSITORY", tmp_path / "inner")
    assert own_version() == f"apf {__version__}"  # the tree around it is somebody else's


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert own_version() == f"apf {__version__}"


def test_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{own_version()}\n"
