# SPDX-License-Identifier: GPL-2.0-or-later
"""Spans of time by thread: was any other thread than this one in a span of its own between two moments?

A search follows one recording some hundred times and asks that for each page of each window, so it is looked up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class ThreadSpans:
    """``by_thread``: the begins of a thread's spans in order, and for each the latest end of those up to it."""

    by_thread: Mapping[int, tuple[tuple[int, ...], tuple[int, ...]]]

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int, int]]) -> ThreadSpans:
        """
        :param spans: (thread, start_ns, end_ns), both ends included, in any order.
        """
        found: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for thread, start_ns, end_ns in spans:
            found[thread].append((start_ns, end_ns))
        return cls({
            thread: (tuple(start for start, _ in own), tuple(accumulate((end for _, end in own), max)))
            for thread, own in ((thread, sorted(own)) for thread, own in found.items())
        })  # fmt: skip

    def beside(self, thread: int, start_ns: int, end_ns: int) -> bool:
        """Whether another thread was in one of its spans at any moment from ``start_ns`` to ``end_ns``."""
        for other, (starts, latest_ends) in self.by_thread.items():
            if other != thread and (begun := bisect_right(starts, end_ns)) and latest_ends[begun - 1] >= start_ns:
                return True
        return False
