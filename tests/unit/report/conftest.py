# SPDX-License-Identifier: GPL-2.0-or-later
"""The browser that several tests share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, driven by playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="make test-browser installs playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "Debian's package chromium is missing"
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=180_000)
        yield found
        found.close()
