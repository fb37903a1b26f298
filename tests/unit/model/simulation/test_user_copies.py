# SPDX-License-Identifier: GPL-2.0-or-later
"""When a page of a userfaultfd comes, in a run that was recorded."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from harness.model.events import Kind
from harness.model.pages import Backing, Folio, HostPage, Lock, Vma
from harness.model.simulation.engine import Wait
from harness.model.simulation.recorded import FaultCall, Recorded, RecordedEvent, WorkRun
from harness.model.simulation.replay import Replay
from harness.model.simulation.user_copies import copied, moments

GFN, VPN = 7, 0x7F0000040
MET = FaultCall(120, 190, thread=10, slept=True, woke_ns=180)
"""A vCPU thread that slept in handle_mm_fault for the page, and came back with it."""


EMPTY = Recorded(
    marks=((), ()), threads=(10, 11), works={}, read_ends={GFN: (10,)}, changes={}, busy=((), ()), unmaps=(),
    ticks=((), ()), host=(), log=((), ()), end_ns=1000,
)  # fmt: skip


def _copy(backing: Backing, *calls: FaultCall) -> tuple[list[Wait], list[Folio | None]]:
    """What UFFDIO_COPY, answered at 100 and over at 200, waits for, and the folio at each wait."""
    recorded = Recorded(
        marks=((),), threads=(10,), works={}, read_ends={GFN: (100,)}, changes={}, busy=((),), unmaps=(), ticks=((),),
        host=(), log=((),), end_ns=1000, calls={GFN: calls}, over={(GFN, 100): 200},
    )  # fmt: skip
    page = HostPage(vpn=VPN, vma=Vma(backing=backing, userfaultfd=True))
    happened: list[int] = []
    memory: Any = SimpleNamespace(
        world=SimpleNamespace(
            replay=Replay(recorded), engine=SimpleNamespace(now=50),
            situation=SimpleNamespace(kernel=SimpleNamespace(tdp_mmu=True)),
        ),
        pages={VPN: page}, vpn=lambda _: VPN, l2_npt=False, happen=lambda gpa, _: happened.append(gpa),
    )  # fmt: skip
    waits, folios = [], []
    for wait in copied(memory, GFN << 12):
        waits.append(wait)
        folios.append(memory.pages[VPN].folio)
        memory.world.engine.now = max(memory.world.engine.now, wait.until_ns)
    assert happened == [GFN << 12]
    return waits, folios


def test_a_page_of_shmem_is_locked_in_the_page_cache_before_it_is_mapped() -> None:
    """Seen on 6.12 (an L2 on a memfd): a touch with FAULT_FLAG_RETRY_NOWAIT slept until the copy had unlocked it."""
    waits, folios = _copy(Backing.SHMEM, MET)
    assert [wait.until_ns for wait in waits] == [100, 119, 179]
    assert folios == [None, None, Folio(lock=Lock.OTHER)]
    [_, *rest], _ = _copy(Backing.SHMEM, replace(MET, woke_ns=-1))
    assert [wait.until_ns for wait in rest] == [119, 189]


@pytest.mark.parametrize(
    ("backing", "call"),
    [
        (Backing.ANON, MET),
        (Backing.SHMEM, replace(MET, slept=False)),
        (Backing.SHMEM, replace(MET, retried=True)),  # it slept in handle_userfault
        (Backing.SHMEM, replace(MET, start_ns=210, end_ns=290, woke_ns=250)),
    ],
    ids=["anon", "awake", "told to retry", "behind it"],
)
def test_nobody_met_it_there(backing: Backing, call: FaultCall) -> None:
    _, folios = _copy(backing, call)
    assert not any(folios)


def test_a_page_may_have_been_copied_behind_a_look_at_its_neighbour() -> None:
    """Read in the source, seen on 6.12 and 7.3: the shadow MMU of an L2 fills what it finds mapped beside the page of a
    ready event or a fault, in no call of handle_mm_fault."""
    marks = (
        (RecordedEvent(Kind.PF, 9, 20, 20, until_ns=60), RecordedEvent(Kind.RDY, 0x1000, 30, 40)),
        (RecordedEvent(Kind.PF, 9, 90, 95),),
    )
    replay = Replay(replace(EMPTY, marks=marks, works={(0, 0x1000): WorkRun(5, gfn=8)}, over={(GFN, 10): 80}))
    assert moments(replay, GFN, 10) == [10]
    assert moments(replay, GFN, 10, {8}) == [10, 41]
    assert moments(replay, GFN, 10, {8, 9}) == [10, 41, 61]  # the last look was behind its end
    assert moments(replay, GFN, 50, {8, 9}) == [50]  # nobody knows how long that lasted


def test_who_found_the_page_and_called_nobody_came_behind_the_copy() -> None:
    """Seen on noio-6.1 (a memfd): UFFDIO_COPY woke a thread that slept for the page, another found it, and only then
    did the ioctl return; what had missed it last had begun behind the decision."""
    slept = FaultCall(40, 190, thread=10, retried=True, slept=True)
    asked = FaultCall(20, 30, thread=11, failed=True)
    found = RecordedEvent(Kind.PF, GFN, 60, 60, until_ns=65)
    recorded = replace(EMPTY, calls={GFN: (slept, asked)}, over={(GFN, 10): 80})

    def at(*marks: RecordedEvent) -> list[int]:
        return moments(Replay(replace(recorded, marks=((), marks))), GFN, 10)

    assert at() == [80, 10, 29]
    assert at(found) == [59, 80, 10, 29]
    assert at(replace(found, windows=(asked,))) == at(replace(found, cut=True)) == at(replace(found, key=8)) == at()
    assert at(replace(found, start_ns=90)) == at(replace(found, start_ns=11)) == at()
