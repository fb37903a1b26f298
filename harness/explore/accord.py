# SPDX-License-Identifier: GPL-2.0-or-later
"""What the verdict of a random scenario says about model and kernel: it was made to be able to disagree, or was not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from harness.judge.verdict_types import Verdict
from harness.model.outcomes import UNBOUNDED, Outcome
from harness.status import Status


class Agreement(StrEnum):
    """What became of a random scenario."""

    EXACT = "agreed, every count and outcome exactly"
    WITHIN = "agreed, within ranges that could have been left"
    IDLE = "could not have failed"
    KNOWN = "shows a known fault of the kernel, as predicted"
    UNDECIDED = "inconclusive"
    UNSUPPORTED = "unsupported"
    DISAGREED = "DISAGREED"
    ERROR = "error of ours or the machine"

    @property
    def counts(self) -> bool:
        """Whether the scenario proves anything."""
        return self in (Agreement.EXACT, Agreement.WITHIN, Agreement.KNOWN, Agreement.DISAGREED)


@dataclass(frozen=True, slots=True)
class Judged:
    """``reasons``: why it is not exact, or not decided; ``rules``: what was broken, the first divergence first."""

    agreement: Agreement
    reasons: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


def judged(verdict: Verdict) -> Judged:
    """The verdict in the words of an exploration."""
    match verdict.status:
        case Status.FAIL:
            rules = tuple(dict.fromkeys(f.rule for f in verdict.findings)) or ("host",)
            return Judged(Agreement.DISAGREED, (verdict.reason,), rules)
        case Status.FINDING:
            return Judged(Agreement.KNOWN, (verdict.reason,))
        case Status.INCONCLUSIVE:
            return Judged(Agreement.UNDECIDED, (verdict.reason,))
        case Status.UNSUPPORTED:
            return Judged(Agreement.UNSUPPORTED, (verdict.reason,))
        case Status.ERROR:
            return Judged(Agreement.ERROR, (verdict.reason,))
        case Status.PASS:
            reasons = tuple(dict.fromkeys(_open(verdict)))
            if not _could_fail(verdict):
                return Judged(Agreement.IDLE, reasons or ("no touch of a page faulted",))
            return Judged(Agreement.WITHIN if reasons else Agreement.EXACT, reasons)


def _open(verdict: Verdict) -> Iterator[str]:
    """Reasons of what the model does not say exactly; what vmstat counts of others is never exact."""
    for row in verdict.totals:
        if row.predicted.low != row.predicted.high and row.name not in ("PGMAJ_HOST", "PGMAJ_REST"):
            yield row.predicted.reason or f"{row.name} is a range"
    for item in verdict.items:
        if len(item.predicted) > 1:
            yield item.why.rpartition(": ")[2] or "several outcomes are legal"


def _could_fail(verdict: Verdict) -> bool:
    """Something happened to a planned page, and other things than that were ruled out."""
    faulted = [item for item in verdict.items if item.first is not Outcome.NONE]
    decided = any(len(item.predicted) == 1 for item in faulted)
    return decided or (bool(faulted) and any(row.predicted.high < UNBOUNDED and row.seen for row in verdict.totals))
