# SPDX-License-Identifier: GPL-2.0-or-later
"""A token that a guest has not zeroed yet stays in its shared area: KVM writes none over it (D70).

Whether the word is free KVM asks before it presents a ready event (arch/x86/kvm/x86.c:apf_pageready_slot_free, through
kvm_arch_can_dequeue_async_page_present), and beside the word it writes the flags alone (apf_put_user_notpresent).  A
handler logs what it finds there, and a ``clear_token`` of the program what it takes away, with an exchange.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.contract.plan import EN_DELIVERS, SHARED_GPA, Item, Op, Plan
from harness.contract.probe_abi import FOUND, PAGE_SIZE, Record
from harness.evidence.decode import Evidence
from harness.evidence.guestlog import GuestRecord
from harness.model.events import MSR_ASYNC_PF_EN


def overwritten_tokens(evidence: Evidence) -> tuple[str, ...] | None:
    """What the guest's log says of tokens that were not the guest's to zero.  None: it has no log, its handler zeroes
    each token itself, or the word is in a page that others write to or the host takes (an area that EN names)."""
    plan, log = evidence.plan, evidence.guest
    if log is None or plan.guest.apf.zero_token or not _own_areas(plan):
        return None
    items = {item.index: item for item in plan.items}
    return tuple(
        f"vCPU {vcpu}: {what}" for vcpu, records in enumerate(log.vcpus) for what in _overwritten(records, items)
    )


def _own_areas(plan: Plan) -> bool:
    """Each vCPU has an area of its own throughout, in a page that nobody else knows."""
    moves = (i for i in plan.items if i.op is Op.WRMSR and i.msr == MSR_ASYNC_PF_EN and i.value & EN_DELIVERS)
    return plan.guest.apf.en_gpa < 0 and all(i.value & ~0x3F == SHARED_GPA + PAGE_SIZE * i.vcpu for i in moves)


def _overwritten(records: Sequence[GuestRecord], items: Mapping[int, Item]) -> Iterator[str]:
    left: int | None = None
    """The token that the guest has found and not zeroed; None: it is not known what is there."""
    for entry in records:
        item = items.get(entry.item) if entry.kind is Record.END else None
        if entry.kind is Record.READY:
            if left is not None and entry.a != left:
                yield f"a ready interrupt found {entry.a:#x} where the guest had not zeroed {left:#x} yet"
            left = entry.a or None
        elif item is not None and item.op is Op.CLEAR_TOKEN:
            found = entry.a & ~FOUND
            if left is not None and entry.a & FOUND and found != left:
                yield f"item {item.index} found {found:#x} where the guest had not zeroed {left:#x} yet"
            left = None
        elif entry.kind is Record.BOOT or (item is not None and item.op is Op.WRMSR and item.msr == MSR_ASYNC_PF_EN):
            left = None
