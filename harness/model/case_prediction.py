# SPDX-License-Identifier: GPL-2.0-or-later
"""What the model says of one test of a host program."""

from __future__ import annotations

from dataclasses import dataclass

from harness.contract.host_program import Case, Outcome, sentence


@dataclass(frozen=True, slots=True)
class CasePrediction:
    """``faults``: ids of the known faults that show."""

    case: Case
    outcome: Outcome
    why: str
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{sentence(self.case, self.outcome)} ({self.why})"
