# SPDX-License-Identifier: GPL-2.0-or-later
"""The address of guest RAM is what most events of the trace say."""

from __future__ import annotations

from harness.evidence.ram_page import ram_page
from harness.model.events import Event, Kind

BASE = 0x7F3575FFF


def fault(gpa: int, hva: int, vcpu: int = 0) -> list[Event]:
    return [Event(Kind.PF, vcpu, gpa=gpa), Event(Kind.MM_FAULT, vcpu, hva=hva), Event(Kind.MM_FAULT, vcpu, hva=0x5000)]


def test_by_page_faults_and_by_completions() -> None:
    events = [
        *fault(0x1160008, (BASE + 0x1160) << 12), Event(Kind.ENTRY, 0), Event(Kind.MM_FAULT, 0, hva=0x7000),
        Event(Kind.DONE, gpa=0x1000010, hva=(BASE + 0x1000) << 12, worker=True), *fault(0x2000, 0x9000, vcpu=1),
    ]  # fmt: skip
    assert ram_page(events) == BASE
    assert ram_page([Event(Kind.PF, 0, gpa=0x1000), Event(Kind.ENTRY, 0), Event(Kind.MM_FAULT, 0, hva=0x9000)]) == 0
