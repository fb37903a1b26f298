# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of the virtual host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.artifacts.images.keys import host_keys
from harness.artifacts.store import Store


def test_made_once_and_private(tmp_path: Path) -> None:
    keys = host_keys(Store(tmp_path))
    assert host_keys(Store(tmp_path)) == keys
    assert keys.host_public.startswith("ssh-ed25519 AAAA") and keys.host_public != keys.client_public
    assert keys.client_private.stat().st_mode & 0o077 == 0
    assert keys.host_private.stat().st_mode & 0o077 == 0
    assert host_keys(Store(tmp_path / "other")).host_public != keys.host_public


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen to check with")
def test_openssh_reads_the_client_key(tmp_path: Path) -> None:
    keys = host_keys(Store(tmp_path))
    shown = subprocess.run(["ssh-keygen", "-y", "-f", keys.client_private], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[:2] == keys.client_public.split()
