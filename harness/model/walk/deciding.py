# SPDX-License-Identifier: GPL-2.0-or-later
"""Which steps of a walk decided how it ended: the one answer that explain, predict and the simulation give."""

from __future__ import annotations

from collections.abc import Sequence

from harness.model.outcomes import Outcome
from harness.model.walk.steps import Mark, WalkStep


def deciding_steps(steps: Sequence[WalkStep], outcome: Outcome, asleep: WalkStep | None) -> tuple[WalkStep, ...]:
    """The steps that made the walk end as it did, in order.

    Where the fault handler refused and what KVM made of it (Mark.REFUSED, Mark.GATE); where the thread went to sleep;
    else the innermost step.

    :param asleep: the step after which the thread slept for the first time; None: it never did.
    """
    gates = [s for s in steps if s.mark is Mark.GATE][-1:]
    refused = [s for s in steps if s.mark is Mark.REFUSED][-1:]
    waited = outcome in (Outcome.SYNC, Outcome.BLOCK)
    chosen = [*gates, *([asleep] if asleep else [])] if waited else [*refused, *gates]
    return tuple(chosen) or (_innermost(steps),)


def in_words(steps: Sequence[WalkStep]) -> str:
    """Steps in one line: function, what it tested, with which result."""
    return "; ".join(f"{s.function}: {s.tested}: {s.result}" for s in steps)


def _innermost(steps: Sequence[WalkStep]) -> WalkStep:
    deepest = max(s.depth for s in steps)
    return next(s for s in steps if s.depth == deepest)
