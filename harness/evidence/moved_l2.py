# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses of an L2 whose nested tables move the guest's memory, as the L1's addresses that plans and models have.

What KVM traces of a page fault of an L2 with nested paging is the address that L2 has of the page (kvm_page_fault,
kvm_try_async_get_page, kvm_async_pf_*: cr2_or_gpa; arch/x86/kvm/mmu/paging_tmpl.h:page_fault, 5.10 to 7.3); the page
itself is found by the address that L1 has of it, which is what the worker and the table of frames must go by.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.contract.probe_abi import MOVED_GPA
from harness.model.events import Event, Kind

_OF_A_PAGE = frozenset((Kind.PF, Kind.TRY, Kind.REP, Kind.NP, Kind.DONE, Kind.RDY))


def moved_back(events: Iterable[Event]) -> tuple[Event, ...]:
    """The events of a guest that has no memory of its own from MOVED_GPA on."""
    return tuple(
        _moved_back(event) if event.kind in _OF_A_PAGE and event.gpa >= MOVED_GPA else event for event in events
    )


def _moved_back(event: Event) -> Event:
    gpa = event.gpa - MOVED_GPA
    if event.kind in (Kind.TRY, Kind.REP) and event.data == gpa >> 12:  # the frame, another than that of the address
        return replace(event, gpa=gpa, data=0)
    return replace(event, gpa=gpa)
