# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions that are the way into a triple fault."""

from __future__ import annotations

from harness.evidence.triple_fault import tell_triple_faults
from harness.model.events import Event, Kind


def inject(vcpu: int = 0, what: str = "#GP (0x1a)") -> Event:
    return Event(Kind.INJ_OTHER, vcpu, text=f"kvm_inj_exception: {what}")


def leave(reason: int, vcpu: int = 0) -> Event:
    return Event(Kind.USER_EXIT, vcpu, value=reason)


ENTER, EXIT, WRITE = Event(Kind.ENTRY, 0), Event(Kind.EXIT, 0), Event(Kind.WRMSR, 0)


def flagged(*events: Event) -> list[int]:
    return [n for n, event in enumerate(tell_triple_faults(events)) if event.flag]


def test_what_was_injected_with_nothing_behind_it_but_the_shutdown() -> None:
    assert flagged(inject(), WRITE, EXIT, inject(), ENTER, EXIT, inject(1), inject(), ENTER, EXIT, leave(8)) == [3, 7]


def test_the_double_fault_behind_it_and_nothing_that_int3_does_not_lead_to() -> None:
    assert flagged(inject(), ENTER, EXIT, inject(what="#DF (0x0)"), ENTER, EXIT, leave(8)) == [0, 3]
    for other in ("#UD (0x0)", "#GP (0x0)"):
        assert flagged(inject(what=other), ENTER, EXIT, leave(8)) == []


def test_any_other_exit_to_the_vmm_or_another_vcpus_is_none() -> None:
    assert flagged(inject(), ENTER, EXIT, leave(10)) == []
    assert flagged(inject(), ENTER, EXIT, leave(8, vcpu=1)) == []
