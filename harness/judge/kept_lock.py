# SPDX-License-Identifier: GPL-2.0-or-later
"""mmap_lock of the VMM, which whoever waits for the read of a page has to let go of."""

from __future__ import annotations

from harness.contract.capture import AgentStep
from harness.contract.words import EndStatus, HostWord
from harness.evidence.decode import Evidence


def kept_lock(evidence: Evidence) -> tuple[str, ...] | None:
    """Who finds the page that he wants being read comes back without it and without mmap_lock, and waits then (mm/
    filemap.c:__folio_lock_or_retry, lock_folio_maybe_drop_mmap; mm/gup.c:faultin_page has ``locked`` for it).  A
    writer of that lock is kept waiting otherwise, and all who fault behind him, for as long as the device takes.

    :return: in words, one where the host word change-mm was said, and did not come to its end; None: nobody can tell.
    """
    if evidence.lost:
        return None
    if evidence.end.status is not EndStatus.GUEST_TIMEOUT:
        return ()
    begun: list[float] = []
    for step in evidence.steps:
        if step.action is not None and step.action.do is HostWord.CHANGE_MM:
            begun = [step.mono] if step.step is AgentStep.HOST_ACTION else []
    return tuple(
        f"the VMM's mmap_lock was not to be had for writing while reads were held ({at:.3f} s)" for at in begun
    )
