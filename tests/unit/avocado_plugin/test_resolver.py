# SPDX-License-Identifier: GPL-2.0-or-later
"""What references mean, asked of the real ``avocado list``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.waiting import HANG_S

AVOCADO = Path(sys.executable).with_name("avocado")
GOOD = """
id = "{id}"
title = "one page"
tags = ["fast", "{id}-tag"]
[pages.f]
groups = 1
[[steps]]
touch = "f"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good files, one with a matrix, and a file that is no scenario."""
    where = tmp_path / "scenarios"
    where.mkdir()
    (where / "X1.toml").write_text(GOOD.format(id="X1"))
    (where / "X2.toml").write_text(GOOD.format(id="X2") + '[matrix]\n"swap.page_cluster" = [1, 2]\n')
    (where / "README.md").write_text("nothing to run here")
    return where


def avocado_list(*words: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """``avocado list`` with a home of its own."""
    return subprocess.run(
        [AVOCADO, "list", *map(str, words)],
        capture_output=True, text=True, cwd=home, env={**os.environ, "HOME": str(home)}, timeout=HANG_S, check=False,
    )  # fmt: skip


def found(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The names after the path of all apf-scenario lines."""
    return [
        line.split(None, 1)[1].partition(".toml:")[2].strip()
        for line in done.stdout.splitlines()
        if line.startswith("apf-scenario")
    ]


@pytest.mark.long
@pytest.mark.parametrize(
    ("reference", "names"),
    [
        ("scenarios", ["X1", "X2/page_cluster=1", "X2/page_cluster=2"]),
        ("scenarios/X1.toml", ["X1"]),
        ("scenarios/X2.toml", ["X2/page_cluster=1", "X2/page_cluster=2"]),
        ("scenarios/X2.toml:X2/page_cluster=2", ["X2/page_cluster=2"]),
        ("scenarios/X2.toml:X2", ["X2/page_cluster=1", "X2/page_cluster=2"]),
        ("scenarios/X1.toml:X9", []),
        ("scenarios/README.md", []),
    ],
)
def test_references(folder: Path, reference: str, names: list[str]) -> None:
    assert found(avocado_list(reference, home=folder.parent)) == names


def test_tags(folder: Path) -> None:
    assert found(avocado_list("-t", "X1-tag", "scenarios", home=folder.parent)) == ["X1"]
    assert len(found(avocado_list("-t", "fast", "scenarios", home=folder.parent))) == 3


def test_no_reference_finds_the_folder_of_the_settings(folder: Path) -> None:
    config = folder.parent / "avocado.conf"
    config.write_text(f"[apf]\nscenario_dir = {folder}\n")
    done = subprocess.run(
        [AVOCADO, "--config", config, "list"],
        capture_output=True, text=True, cwd=folder.parent, env={**os.environ, "HOME": str(folder.parent)},
        timeout=HANG_S, check=False,
    )  # fmt: skip
    assert found(done) == ["X1", "X2/page_cluster=1", "X2/page_cluster=2"]


def test_a_wrong_file_is_told_with_its_key(folder: Path) -> None:
    (folder / "X1.toml").write_text(GOOD.format(id="X1").replace("touch", "tuch"))
    done = avocado_list("scenarios/X1.toml", home=folder.parent)
    assert "tuch" in done.stdout + done.stderr
    assert found(done) == []
