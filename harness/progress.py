# SPDX-License-Identifier: GPL-2.0-or-later
"""How long work tells that it goes on."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with what is being done and, where it is known, how much of it is done (0.0 to 1.0)."""

    def __call__(self, what: str, done: float | None = None) -> None: ...


def silent(what: str, done: float | None = None) -> None:
    """Tell nobody."""
