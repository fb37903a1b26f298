# SPDX-License-Identifier: GPL-2.0-or-later
"""How many entries of KVM's page tables can have come to be in a run, and how many faults can have made none: upper
bounds of pf_fixed, and of what it does not count."""

from __future__ import annotations

from collections import Counter

from harness.contract.plan import GuestKind, HostWord, Op, Plan, says, starts_anew
from harness.evidence.decode import Evidence
from harness.model.events import WAKE_ALL_TOKEN, Kind
from harness.model.kernels import KernelModel

_READ_ONLY_AND_WRITABLE = 2
_FRAME_BITS = 12


def fixed_entries_bound(evidence: Evidence) -> int | None:
    """Who finds the entry as it would write it has fixed nothing (RET_PF_SPURIOUS): of those that wait for one page
    the first alone fixes it.  Each page that faults, and each that an invalidation takes, may be mapped for a read,
    and then made writable.  What a ready event maps has no accessed bit (make_spte, prefetch): until 6.12 that replaces
    an entry which has it, and a fault that finds it there writes it anew.

    :return: None: entries come and go by something of which no event tells: CR0.PG and a vCPU that starts anew free the
        root of the tables, a snapshot has them written anew, an L2 has tables of its own.
    """
    if _entries_go_otherwise(evidence.plan):
        return None
    frames = {e.gpa >> _FRAME_BITS for e in evidence.events if e.kind in (Kind.PF, Kind.RDY)}
    taken = sum(min(e.data - e.hva >> _FRAME_BITS, len(frames)) for e in evidence.events if e.kind is Kind.UNMAP)
    mapped = sum(e.kind is Kind.RDY and e.token != WAKE_ALL_TOKEN for e in evidence.events)
    return _READ_ONLY_AND_WRITABLE * (len(frames) + taken + mapped)


def fixed_for_ready_bound(evidence: Evidence, kernel: KernelModel) -> int | None:
    """How many entries can have been fixed for ready events: of those of one page, whichever vCPU's, the first alone,
    and one more for each invalidation that may have taken the page, as a prefetch that finds an entry is spurious.

    :return: None: as fixed_entries_bound; or until 6.12, when a prefetch replaces a read-only entry.
    """
    if not kernel.prefetch_keeps_entry or _entries_go_otherwise(evidence.plan):
        return None
    told = Counter(e.gpa >> _FRAME_BITS for e in evidence.events if e.kind is Kind.RDY and e.token != WAKE_ALL_TOKEN)
    lies_at = {e.gpa >> _FRAME_BITS: e.hva >> _FRAME_BITS for e in evidence.events if e.kind is Kind.DONE}
    unmaps = [(e.hva >> _FRAME_BITS, e.data - 1 >> _FRAME_BITS) for e in evidence.events if e.kind is Kind.UNMAP]

    def taken(frame: int) -> int:
        at = lies_at.get(frame)
        return sum(at is None or first <= at <= last for first, last in unmaps)

    return sum(1 if times == 1 else min(times, 1 + taken(frame)) for frame, times in told.items())


def unfixed_bound(evidence: Evidence) -> int | None:
    """How many faults can have ended with no entry that is counted as fixed, found, or emulated (RET_PF_RETRY): of
    those of one page all but one, where no ready event has mapped it, as the guest's access has come to its end.

    :return: None: as fixed_entries_bound.
    """
    if _entries_go_otherwise(evidence.plan):
        return None
    own: Counter[int] = Counter()
    unsure = {page for read in (evidence.gate.reads if evidence.gate else ()) if read.error for page in read.pages}
    faults = 0
    for event in evidence.events:
        if event.kind is Kind.PF:
            own[event.gpa >> _FRAME_BITS] += 1
            faults += 1
        elif event.kind is Kind.NP or event.kind is Kind.REP:
            own[event.gpa >> _FRAME_BITS] -= 1
        elif event.kind is Kind.RDY and event.token != WAKE_ALL_TOKEN:
            unsure.add(event.gpa >> _FRAME_BITS)
    return faults - sum(times > 0 and frame not in unsure for frame, times in own.items())


def _entries_go_otherwise(plan: Plan) -> bool:
    return (
        plan.guest.kind is not GuestKind.PROBE
        or starts_anew(plan)
        or says(plan, HostWord.SAVEVM)
        or any(item.op is Op.PAGING or item.level == 2 or item.no_paging for item in plan.items)
    )
