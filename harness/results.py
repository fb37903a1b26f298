# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run found: one row for each planned (scenario, kernel, repeat), and what that means for the exit code."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from harness.judge.verdict_types import Verdict
from harness.model.kernels import Variant
from harness.model.known_faults import KNOWN_FAULTS
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
class AcceptedFinding:
    """A finding about shipped kernels that does not make a run red.

    :ivar finding: "F1" (harness/model/known_faults.py).
    :ivar kernels: names or globs of the kernels that are known to have it.
    :ivar reason: why that is accepted, and until when.
    """

    finding: str
    kernels: tuple[str, ...]
    reason: str

    def covers(self, kernel: str) -> bool:
        """Whether this kernel is one of them."""
        return any(fnmatch.fnmatchcase(kernel, pattern) for pattern in self.kernels)


@dataclass(frozen=True, slots=True)
class RunResult:
    """A whole run.  ``planned`` is what had to be done, in order; ``interrupted``: a signal ended it early.

    ``allowed``: scenarios that may be UNSUPPORTED; ``accepted``: findings that may be reproduced.
    ``troubles``: what went wrong and is about no scenario, such as a machine that is not as it was before.
    ``refused``: what is wrong with each scenario file that was meant and could not be used.
    """

    run: str
    command: str
    planned: tuple[Key, ...]
    rows: tuple[Row, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()
    accepted: tuple[AcceptedFinding, ...] = ()
    interrupted: bool = False
    seconds: float = 0.0
    troubles: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[Key, ...]:
        """Planned, but without a verdict."""
        done = {row.key for row in self.rows}
        return tuple(key for key in self.planned if key not in done)

    def row(self, key: Key) -> Row | None:
        """The verdict about this; None while it is missing."""
        return next((row for row in self.rows if row.key == key), None)

    def is_green(self, row: Row) -> bool:
        """PASS; UNSUPPORTED where this run allows it by name; FINDING where it accepts that on this kernel."""
        match row.status:
            case Status.PASS:
                return True
            case Status.UNSUPPORTED:
                return row.key.scenario in self.allowed
            case Status.FINDING:
                return all(self._accepts(name, row.key.kernel) for name in row.verdict.shown_faults)
            case Status.FAIL | Status.INCONCLUSIVE | Status.ERROR:
                return False
            case _:
                assert_never(row.status)

    def _accepts(self, finding: str, kernel: str) -> bool:
        return any(a.finding == finding and a.covers(kernel) for a in self.accepted)

    @property
    def to_retire(self) -> tuple[str, ...]:
        """Accepted findings that a kernel of this run does not show any more, one sentence for each."""
        found = []
        for accepted in self.accepted:
            fault = KNOWN_FAULTS[accepted.finding]
            rows = [row for row in self.rows if accepted.covers(row.key.kernel)]
            if any(fault.id in row.verdict.shown_faults for row in rows):
                continue
            for row in rows:
                gone = any(known.id == fault.id and known.predicted for known in row.verdict.known_faults)
                if gone or (row.status is Status.PASS and row.key.scenario in fault.scenarios):
                    found.append(
                        f"{fault.id} is accepted on {row.key.kernel}, but {row.key.scenario} does not show it there any"
                        " more: take it out of the accepted findings"
                    )
        return tuple(dict.fromkeys(found))

    @property
    def exit_code(self) -> int:
        """0 green; 1 failed, inconclusive, finding or unsupported without leave; 2 green, but scenario files were
        refused; 3 errors, troubles, no verdict; 130 interrupted.

        A finding about a kernel outranks a fault of ours: it is the better news to act on.
        """
        if self.interrupted:
            return 130
        bad = [row for row in self.rows if not self.is_green(row)]
        if any(row.status is not Status.ERROR for row in bad):
            return 1
        if bad or self.missing or self.troubles or not self.rows:
            return 3
        return 2 if self.refused else 0
