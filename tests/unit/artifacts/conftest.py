# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the artifacts' tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.artifacts.debian import apt_sources
from tests.unit.artifacts.mirror import Mirror


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """An empty mirror that this machine uses instead of its own."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool}")
    made = Mirror(tmp_path / "mirror")
    made.root.mkdir()
    monkeypatch.setattr(apt_sources, "machine_sources", made.sources)
    return made
