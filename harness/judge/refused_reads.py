# SPDX-License-Identifier: GPL-2.0-or-later
"""Read-ahead that device mapper did not take, because a host word was loading another table just then."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from harness.contract.plan import SwapKind
from harness.contract.words import HostWord
from harness.model.events import Event, Kind

if TYPE_CHECKING:
    from harness.contract.plan import Plan
    from harness.model.simulation.recorded import RecordedAction

_LOADS_A_TABLE = {HostWord.FREEZE, HostWord.THAW, HostWord.DELAY}
"""Of a dm-delay device (harness/agent/host/dm.py)."""
_SECTORS = 8


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
    own = [e for e in events if e.kind in (Kind.BIO, Kind.BIO_END) and e.dev == dev and e.flag]
    return frozenset(
        (gfn_of[sector], ended.t_ns - start_ns)
        for asked, ended in pairwise(own)
        if _refused(asked, ended) and any(begin <= asked.t_ns <= end for begin, end in changes)
        for sector in range(ended.value, ended.value + ended.data, _SECTORS)
        if sector in gfn_of
    )


def _refused(asked: Event, ended: Event) -> bool:
    return (
        asked.kind is Kind.BIO
        and " RA " in asked.text
        and (ended.kind, ended.tid, ended.value, ended.data) == (Kind.BIO_END, asked.tid, asked.value, asked.data)
        and ended.token == errno.EIO
    )
