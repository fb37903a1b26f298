# SPDX-License-Identifier: GPL-2.0-or-later
"""Interrupts that KVM injects once more, where its event does not say so (kvm_inj_virq before 5.19).

An entry that was cancelled behind the injection (arch/x86/kvm/x86.c:vcpu_enter_guest), or an exit during the delivery,
has the interrupt injected again (inject_pending_event) and traced again.  It was accepted once: each interrupt that the
guest is given begins with an acceptance by its LAPIC.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from harness.model.events import Event, Kind

_UNTOLD = "kvm_inj_virq: irq "


def tell_injected_again(events: Sequence[Event]) -> tuple[Event, ...]:
    """The events, with ``flag`` at each such injection; those of a vector that no LAPIC was seen to accept stay."""
    if not any(event.kind is Kind.VIRQ and _UNTOLD in event.text for event in events):
        return tuple(events)
    out = list(events)
    waiting: defaultdict[int, set[int]] = defaultdict(set)
    given: dict[int, int] = {}  # by vCPU: the last one that had been accepted,
    due: dict[int, int] = {}  # and as long as no entry has followed: the next may have been accepted meanwhile
    for n, event in enumerate(events):
        if event.kind is Kind.ACC:
            waiting[event.vcpu].add(event.value)
        elif event.kind is Kind.ENTRY:
            due.pop(event.vcpu, None)
        elif event.kind is Kind.VIRQ and event.value in waiting[event.vcpu] and event.value != due.get(event.vcpu):
            waiting[event.vcpu].discard(event.value)
            given[event.vcpu] = due[event.vcpu] = event.value
        elif event.kind is Kind.VIRQ and event.value == given.get(event.vcpu):
            out[n] = replace(event, flag=True)
    return tuple(out)
