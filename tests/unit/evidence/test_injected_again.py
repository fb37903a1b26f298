# SPDX-License-Identifier: GPL-2.0-or-later
"""An interrupt of an entry that was cancelled is injected again: 5.10 does not say so."""

from __future__ import annotations

from harness.evidence.injected_again import tell_injected_again
from harness.model.events import Event, Kind


def accept(vector: int, vcpu: int = 0) -> Event:
    return Event(Kind.ACC, vcpu, value=vector)


def inject(vector: int, vcpu: int = 0, *, how: str = "irq") -> Event:
    return Event(Kind.VIRQ, vcpu, value=vector, text=f"kvm_inj_virq: {how} {vector}")


def again(*events: Event) -> list[int]:
    return [n for n, e in enumerate(tell_injected_again(events)) if e.flag]


def test_each_acceptance_is_one_interrupt() -> None:
    assert again(accept(243), inject(243), accept(236), inject(243), inject(236), inject(236)) == [3, 5]
    assert again(accept(243), inject(243), Event(Kind.ENTRY, 0), accept(243), inject(243)) == []
    assert again(accept(243), inject(243), inject(243, vcpu=1)) == [], "another vCPU's"


def test_no_entry_has_followed_though_the_next_was_accepted_meanwhile() -> None:
    enter = Event(Kind.ENTRY, 0)
    assert again(accept(64), inject(64), accept(64), inject(64), enter, inject(64)) == [3]


def test_one_that_was_accepted_before_the_trace_or_by_no_lapic_is_left_alone() -> None:
    assert again(inject(243), inject(243)) == []
    assert again(inject(32), inject(32), accept(243), inject(243), inject(32)) == []


def test_a_kernel_that_says_so_is_believed() -> None:
    assert again(accept(243), inject(243, how="IRQ"), inject(243, how="IRQ")) == []
