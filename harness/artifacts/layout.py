# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the repository keeps what artifacts are made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import harness

HARNESS = Path(harness.__file__).parent
REPOSITORY = HARNESS.parent
GUEST_IMAGES = REPOSITORY / "guest-images"
KERNELS = REPOSITORY / "kernels"
REPRODUCERS = REPOSITORY / "reproducers"


def digest(paths: Iterable[Path], base: Path) -> dict[str, str]:
    """sha256 by path relative to ``base``, for recipes."""
    return {str(path.relative_to(base)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}
