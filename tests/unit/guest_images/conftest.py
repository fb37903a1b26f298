# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe guest, built once for all tests of this folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.unit.guest_images.probe_rig import PROBE_SOURCE


@pytest.fixture(scope="session")
def probe_elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probe")
    done = subprocess.run(["make", "-C", str(PROBE_SOURCE), f"OUT={out}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "probe.elf"
