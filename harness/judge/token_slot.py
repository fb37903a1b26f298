# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether KVM can put the token of a ready event into the shared area, as far as the guest's log tells.

KVM looks at the token word when it is asked to (KVM_REQ_APF_READY: by the first completion of an empty list, by a
wake-all that finds it empty, by the LAPIC's being switched on) and at an ACK, and waits for nobody: of a word that the
guest clears later nobody tells it (arch/x86/kvm/x86.c:apf_pageready_slot_free, kvm_check_async_pf_completion;
virt/kvm/async_pf.c:async_pf_execute, kvm_async_pf_wakeup_all; 6.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from harness.contract.plan import Item, Op, Plan, starts_anew
from harness.contract.probe_abi import Record
from harness.evidence.decode import Evidence
from harness.evidence.guestlog import GuestLog, GuestRecord
from harness.model.events import MSR_ASYNC_PF_ACK, MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, WAKE_ALL_TOKEN, Kind
from harness.prediction import area_words

_WRITTEN = (MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT)
"""A handler writes ACK, and no record of that."""


@dataclass(frozen=True, slots=True)
class TokenSlots:
    """Of vCPUs, by number.

    :ivar taken: the guest has left the last ready event's token where it was, or not acknowledged it, so that KVM can
        present no other (behaviour.md B.7).
    :ivar freed: the last that cleared the token word, which had held something, and at which time on the trace's clock
        (in ns) it had done so, or infinity if nothing tells; nothing has asked KVM to look again.
    """

    taken: frozenset[int]
    freed: Mapping[int, float]


def token_slots(evidence: Evidence) -> TokenSlots:
    """What is known at the end of the guest's log; nothing of a guest without one.

    A ready event writes its token there if the guest was told that the page is missing, and the wake-all always does.
    A shared area in a page that holds data has something there from the start.  Moving the area does not help: who
    finds completions waiting asks for nothing (kvm_async_pf_wakeup_all, async_pf_execute; behaviour.md B.7, B.9).
    """
    plan, log = evidence.plan, evidence.guest
    if log is None:
        return TokenSlots(frozenset(), {})
    apf = plan.guest.apf
    taken, freed = set(), {}
    for v, records in enumerate(log.vcpus):
        # What a handler has found was there, although a reset may have kept the guest from writing that it was told.
        told = {WAKE_ALL_TOKEN} | {e.a for e in records if e.kind in (Record.TOKEN, Record.READY)}
        ready = sum(e.vcpu == v and e.token in told for e in evidence.of(Kind.RDY))
        handled = sum(e.kind is Record.READY for e in records)
        word = _Word(plan, full=bool(area_words(plan)[1]), unseen=ready - handled)
        for entry in records:
            word.see(entry)
        if word.full or word.unseen > 0 or (ready and (apf.ack_first or not apf.ack)):
            taken.add(v)
        elif word.freed is not None:
            freed[v] = _on_the_trace(evidence, log, v, word.freed)
    return TokenSlots(frozenset(taken), freed)


class _Word:
    """The token word of one vCPU, as far as the guest came; clearing an empty one frees nothing.

    :param full: it holds something from the start. :param unseen: tokens of which no handler wrote that it had found
        them.
    """

    def __init__(self, plan: Plan, *, full: bool, unseen: int) -> None:
        self.full, self.unseen = full, unseen
        self.freed: GuestRecord | None = None  # by this, and nothing has asked since
        self._apf = plan.guest.apf
        self._items: Mapping[int, Item] = {item.index: item for item in plan.items}

    def see(self, entry: GuestRecord) -> None:
        if entry.kind is Record.READY:
            self.full = not self._apf.zero_token
            self.freed = None
        elif entry.kind is Record.BOOT:
            self.freed = None
        elif entry.kind is Record.END and entry.item in self._items:
            self._ends(self._items[entry.item], entry)

    def _ends(self, item: Item, entry: GuestRecord) -> None:
        if item.op is Op.CLEAR_TOKEN:
            if self.full or self.unseen > 0:
                self.freed = entry
            self.unseen -= not self.full and self.unseen > 0
            self.full = False
        elif item.op is Op.LAPIC or (item.op is Op.WRMSR and item.msr == MSR_ASYNC_PF_ACK and item.value & 1):
            self.freed = None


def _on_the_trace(evidence: Evidence, log: GuestLog, vcpu: int, entry: GuestRecord) -> float:
    """When that had been written at the latest: what a vCPU wrote down just before it wrote an MSR was before the event
    of that write (kvm_msr)."""
    if starts_anew(evidence.plan) or not log.tsc_khz:
        return inf  # the guest's clock may begin anew
    before = tuple(_before_writes(log.vcpus[vcpu]))
    writes = tuple(e.t_ns for e in evidence.of(Kind.WRMSR) if e.vcpu == vcpu and e.value in _WRITTEN)
    if not before or len(before) != len(writes):
        return inf
    return min(
        write + (entry.tsc - tsc) * 1_000_000 // log.tsc_khz for tsc, write in zip(before, writes, strict=True)
    )  # fmt: skip


def _before_writes(records: Sequence[GuestRecord]) -> Iterator[int]:
    """The guest's clock at the record before each write of EN or INT that has one of its own."""
    for before, entry in pairwise(records):
        if entry.kind is Record.MSR and entry.a in _WRITTEN:
            yield before.tsc
