# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run found: one row for each planned (scenario, kernel, repeat), and what that means for the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.judge.verdict_types import Verdict
from harness.model.kernels import Variant
from harness.status import Status


@dataclass(frozen=True, slots=True)
class Key:
    """What a verdict is about.  ``repeat`` counts from 1."""

    scenario: str
    kernel: str
    repeat: int = 1

    @property
    def folder(self) -> str:
        """The name of its folder below the run's: readable, and safe in shells and paths."""
        name = "".join(c if c.isalnum() or c in "._-=+" else "_" for c in f"{self.scenario}+{self.kernel}")
        return name if self.repeat == 1 else f"{name}+{self.repeat}"

    def __str__(self) -> str:
        again = f" (repeat {self.repeat})" if self.repeat > 1 else ""
        return f"{self.scenario} on {self.kernel}{again}"


@dataclass(frozen=True, slots=True)
class Row:
    """One verdict of a run, whole.

    :ivar title: what the scenario is about.
    :ivar seconds: how long it took to perform and judge; the boot of a host is no part of it.
    """

    key: Key
    verdict: Verdict
    title: str = ""
    seconds: float = 0.0

    @property
    def folder(self) -> str:
        """The name of its folder below the run's."""
        return self.key.folder

    @property
    def status(self) -> Status:
        """The verdict in one word."""
        return self.verdict.status

    @property
    def variant(self) -> Variant | None:
        """Which kind of model the kernel was held against."""
        return self.verdict.variant


@dataclass(frozen=True, slots=True)
class RunResult:
    """A whole run.  ``planned`` is what had to be done, in order; ``interrupted``: a signal ended it early."""

    run: str
    command: str
    planned: tuple[Key, ...]
    rows: tuple[Row, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def missing(self) -> tuple[Key, ...]:
        """Planned, but without a verdict."""
        done = {row.key for row in self.rows}
        return tuple(key for key in self.planned if key not in done)

    def row(self, key: Key) -> Row | None:
        """The verdict about this; None while it is missing."""
        return next((row for row in self.rows if row.key == key), None)

    def is_green(self, row: Row) -> bool:
        """PASS; or UNSUPPORTED where this run allows it by name."""
        return row.status is Status.PASS or (row.status is Status.UNSUPPORTED and row.key.scenario in self.allowed)

    @property
    def exit_code(self) -> int:
        """0 green; 1 failed, inconclusive, or unsupported without leave; 3 errors, missing verdicts; 130 interrupted.

        A finding about a kernel outranks a fault of ours: it is the better news to act on.
        """
        if self.interrupted:
            return 130
        bad = [row for row in self.rows if not self.is_green(row)]
        if any(row.status is not Status.ERROR for row in bad):
            return 1
        return 3 if bad or self.missing or not self.rows else 0
