# SPDX-License-Identifier: GPL-2.0-or-later
"""An L2 that touches pages at addresses of its own: events have L1's, and a frame that is not the page's is seen."""

from __future__ import annotations

from harness.contract.probe_abi import MOVED_GPA
from harness.evidence.moved_l2 import moved_back
from harness.model.events import Event, Kind

GPA = 0x1000000


def test_addresses_are_those_of_l1() -> None:
    kinds = (Kind.PF, Kind.TRY, Kind.REP, Kind.NP, Kind.DONE, Kind.RDY)
    events = [Event(kind, 0, gpa=GPA + MOVED_GPA, data=7) for kind in kinds]
    assert [e.gpa for e in moved_back(events)] == [GPA] * len(kinds)
    assert [e.data for e in moved_back(events)] == [7] * len(kinds)
    plain = [Event(Kind.PF, 0, gpa=GPA), Event(Kind.ENTRY, 0), Event(Kind.MM_FAULT, 0, hva=MOVED_GPA)]
    assert list(moved_back(plain)) == plain


def test_the_frame_of_the_page_is_none_of_its_own() -> None:
    right = Event(Kind.TRY, 0, gpa=GPA + MOVED_GPA, data=GPA >> 12)
    wrong = Event(Kind.TRY, 0, gpa=GPA + MOVED_GPA, data=GPA + MOVED_GPA >> 12)
    assert [e.data for e in moved_back([right, wrong])] == [0, GPA + MOVED_GPA >> 12]
