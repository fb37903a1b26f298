# SPDX-License-Identifier: GPL-2.0-or-later
"""Read-ahead that device mapper did not take, because a host word was loading another table just then."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from harness.contract.plan import SwapKind
from harness.contract.probe_abi import SECTORS_PER_PAGE
from harness.contract.words import HostWord
from harness.model.events import Event, Kind

if TYPE_CHECKING:
    from harness.contract.plan import Plan
    from harness.model.simulation.recorded import RecordedAction

_LOADS_A_TABLE = {HostWord.FREEZE, HostWord.THAW, HostWord.DELAY}
"""Of a dm-delay device (harness/agent/host/dm.py)."""


def refused_reads(
    plan: Plan,
    events: Iterable[Event],
    dev: int,
    places: Mapping[int, int],
    start_ns: int,
    actions: Iterable[RecordedAction],
) -> frozenset[tuple[int, int]]:
    """(gfn, end of its read) of each page that was to be read ahead, whose bio ended with EIO where it was submitted
    (drivers/md/dm.c:dm_submit_bio, REQ_RAHEAD, 6.1): the page is in the cache then, not uptodate, and whoever wants it
    reads it by itself (mm/filemap.c:filemap_fault).

    :param dev: the pages' device, major << 20 | minor.
    :param places: the sector of each page, by gfn.
    :param start_ns: where the recording's time begins on the trace clock.
    :param actions: of the agent, in the recording's time.
    """
    if plan.swap.kind is not SwapKind.DELAY:
        return frozenset()
    changes = [(start_ns + a.start_ns, start_ns + a.end_ns) for a in actions if a.do in _LOADS_A_TABLE]
    gfn_of = {sector: gfn for gfn, sector in places.items()}
    return frozenset(
        (gfn_of[sector], ended.t_ns - start_ns)
        for asked, ended in _failed(events, dev)
        if _refused(asked, ended) and any(begin <= ended.t_ns <= end for begin, end in changes)
        for sector in range(ended.value, ended.value + ended.data, SECTORS_PER_PAGE)
        if sector in gfn_of
    )


def device_errors(plan: Plan, events: Iterable[Event], dev: int) -> Iterator[Event]:
    """Ends of reads of the pages' device with an error that its own driver has made, and no plan asks for.

    Those of a gated device are what its server answered (harness/evidence/gate_agreement.py).
    """
    if plan.swap.kind is SwapKind.GATED:
        return
    for asked, ended in _failed(events, dev):
        if plan.swap.kind is not SwapKind.DELAY or not _refused(asked, ended):
            yield ended


def _failed(events: Iterable[Event], dev: int) -> Iterator[tuple[Event | None, Event]]:
    """Each read of the device that ended with an error, behind what the same thread had submitted last."""
    asked: dict[int, Event] = {}
    for event in events:
        if event.dev == dev and event.flag and event.kind is Kind.BIO:
            asked[event.tid] = event
        elif event.dev == dev and event.flag and event.kind is Kind.BIO_END and event.token:
            yield asked.get(event.tid), event


def _refused(asked: Event | None, ended: Event) -> bool:
    return (
        asked is not None
        and " RA " in asked.text
        and (ended.value, ended.data, ended.token) == (asked.value, asked.data, errno.EIO)
    )
