# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run is asked to do, and what it tells while it does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.report.results import Row


@dataclass(frozen=True, slots=True)
class Request:
    """``kernels``: names of the catalogue, or paths; ``repeats``: 0 means as often as each scenario says."""

    patterns: tuple[str, ...] = ()
    scenario_paths: tuple[Path, ...] = ()
    kernels: tuple[str, ...] = ("debian-6.1",)
    results: Path = Path("results")
    repeats: int = 0
    host: str = "virtual"
    disk: str = ""
    allow_unsupported: frozenset[str] = frozenset()
    command: str = ""


class Observer(Protocol):
    """Hears of a run; report.terminal.Screen is one."""

    def scope(self, prefix: str) -> None: ...

    def progress(self, what: str, done: float | None = None) -> None: ...

    def line(self, text: str = "") -> None: ...

    def verdict(self, row: Row) -> None: ...
