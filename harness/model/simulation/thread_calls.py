# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls of handle_mm_fault by thread: which had other threads than this one between two moments?

Of a page that cannot be read there are thousands, and that is asked for each of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter

from harness.model.simulation.recorded import FaultCall

_begin_of = attrgetter("start_ns")


@dataclass(frozen=True, slots=True)
class ThreadCalls:
    """``by_thread``: the calls of a thread in the order of their begins, and for each the latest end up to it."""

    by_thread: Mapping[int, tuple[tuple[FaultCall, ...], tuple[int, ...]]]

    @classmethod
    def of(cls, calls: Iterable[FaultCall]) -> ThreadCalls:
        """
        :param calls: of all threads, in any order.
        """
        found: defaultdict[int, list[FaultCall]] = defaultdict(list)
        for call in calls:
            found[call.thread].append(call)
        for own in found.values():
            own.sort(key=_begin_of)
        return cls({t: (tuple(own), tuple(accumulate((c.end_ns for c in own), max))) for t, own in found.items()})

    def beside(self, thread: int, start_ns: int, end_ns: int) -> list[FaultCall]:
        """Calls of other threads that had begun before ``end_ns`` and were not over at ``start_ns``."""
        return [
            call
            for other, (calls, latest_ends) in self.by_thread.items()
            if other != thread
            for call in calls[bisect_right(latest_ends, start_ns) : bisect_left(calls, end_ns, key=_begin_of)]
            if call.end_ns > start_ns
        ]
