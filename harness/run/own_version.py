# SPDX-License-Identifier: GPL-2.0-or-later
"""What this harness is: its version, and the commit where it runs from a git tree."""

from __future__ import annotations

import subprocess

from harness import __version__
from harness.artifacts.layout import REPOSITORY


def own_version() -> str:
    """ "apf 0.1.0, commit 53c93dfc0123", "+" behind it with changes that are not committed; without git the version
    alone."""
    words = ["git", "-C", str(REPOSITORY), "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return f"apf {__version__}"
    commit = done.stdout.strip() if done.returncode == 0 and (REPOSITORY / ".git").exists() else ""
    return f"apf {__version__}{f', commit {commit}' if commit else ''}"
