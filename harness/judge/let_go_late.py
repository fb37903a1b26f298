# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads that the gated device let go because what they were to wait for did not come."""

from __future__ import annotations

from operator import attrgetter

from harness.contract.words import ReadEnd
from harness.errors import ModelError
from harness.evidence.decode import Evidence
from harness.model.kernels import KernelModel
from harness.prediction import held_for_good

IN_VAIN = "reads were let go because what they were to wait for did not come (gate.json)"
FORESEEN = "reads were let go, as the model says that what they wait for never comes; all is as predicted"


def let_go_late(evidence: Evidence) -> int:
    """How many there are."""
    return sum(read.why is ReadEnd.LATE for read in evidence.gate.reads) if evidence.gate else 0


def foreseen(evidence: Evidence, kernel: KernelModel) -> bool:
    """Whether the plan itself, as the model performs it, whichever vCPU comes first, never comes to what the first of
    them waits for.

    What is held later waits in a run that the plan does not have.
    """
    late = [read for read in evidence.gate.reads if read.why is ReadEnd.LATE] if evidence.gate else []
    if not late:
        return False
    pages = min(late, key=attrgetter("answered_ns")).pages
    try:
        return bool(pages) and any(held.issuperset(pages) for held in held_for_good(evidence.plan, kernel))
    except ModelError:
        return False
