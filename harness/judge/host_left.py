# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run has left behind: a host that the agent could not set back to what it was."""

from __future__ import annotations

from dataclasses import replace

from harness.contract.capture import RunEnd
from harness.contract.words import EndStatus
from harness.judge.verdict_types import Verdict
from harness.status import Status


def with_its_host(verdict: Verdict, end: RunEnd) -> Verdict:
    """The same verdict, but nothing is green where the host was left otherwise than it was found: what could not be
    taken back, such as a swap area whose last slot is never free, was in the way of nothing until then.

    Whether the kernel or another process is to blame is not in the evidence: no rule is broken by it.
    """
    if end.undone:
        return verdict
    left = f"the host could not be set back: {end.reason}"
    if verdict.status in (Status.PASS, Status.FINDING, Status.UNSUPPORTED):  # the last is green where it is allowed
        return replace(verdict, status=Status.INCONCLUSIVE, reason=left, taints=True)
    return replace(verdict, notes=(*verdict.notes, left), taints=True)


def is_unknown(end: RunEnd | None) -> bool:
    """Whether a host may be in any state behind a run that ended so, whatever its evidence says; None: nobody knows how
    it ended."""
    return end is None or not end.undone or end.status in (EndStatus.GUEST_TIMEOUT, EndStatus.QEMU_DIED)
