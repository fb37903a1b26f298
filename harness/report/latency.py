# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the steps of an asynchronous page fault took, from the events that are recorded anyway.  Nanoseconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from statistics import median, quantiles

from harness.evidence.decode import Evidence
from harness.model.events import Kind
from harness.report.timeline.item_lanes import item_times
from harness.report.timeline.work_lanes import works_of


class Latency(StrEnum):
    """What is measured; the value is its heading."""

    TOKEN = "fault to token"  # kvm_page_fault to kvm_inj_exception
    READY = "completion to ready"  # kvm_async_pf_completed to kvm_async_pf_ready
    RESUMED = "ready to resumed item"  # kvm_async_pf_ready to the guest's record WAKE
    ENTERED = "ready to entry of a halted vCPU"  # kvm_async_pf_ready to the next kvm_entry


Latencies = Mapping[Latency, Sequence[int]]
"""Each measured time, in the order in which it came."""


def latencies(evidence: Evidence) -> dict[Latency, list[int]]:
    """Of one run; a kind of which nothing was seen is an empty list."""
    found: dict[Latency, list[int]] = {kind: [] for kind in Latency}
    events = sorted(evidence.events, key=lambda e: e.t_ns)
    fault: dict[int, int] = {}
    noted: set[int] = set()
    halted: dict[int, int] = {}  # vCPU -> its first ready event since
    for e in events:
        if e.kind is Kind.PF:
            fault[e.vcpu] = e.t_ns
        elif e.kind is Kind.NP:
            noted.add(e.vcpu)
        elif e.kind is Kind.INJ and not e.flag and e.vcpu in noted and e.vcpu in fault:
            found[Latency.TOKEN].append(e.t_ns - fault.pop(e.vcpu))
        elif e.kind is Kind.RDY and e.vcpu in noted:  # no entry since the NP: it is halted
            halted.setdefault(e.vcpu, e.t_ns)
        elif e.kind is Kind.ENTRY:
            noted.discard(e.vcpu)
            fault.pop(e.vcpu, None)
            if e.vcpu in halted:
                found[Latency.ENTERED].append(e.t_ns - halted.pop(e.vcpu))
    works = works_of(events)
    found[Latency.READY] = [w.ready_ns - w.done_ns for w in works if 0 <= w.done_ns <= w.ready_ns]
    if evidence.guest is not None and events:
        times, _ = item_times(evidence.plan, evidence.guest, events, events[-1].t_ns)
        ready = {(w.vcpu, w.token): w.ready_ns for w in works if w.ready_ns >= 0}
        for item in times:
            for token, t in item.resumed:
                at = ready.get((item.vcpu, token & 0xFFFFFFFF))
                if at is not None and t >= at:
                    found[Latency.RESUMED].append(t - at)
    return found


def joined(parts: Iterable[Latencies]) -> dict[Latency, list[int]]:
    """Those of several runs together."""
    every = list(parts)
    return {kind: list(chain.from_iterable(part.get(kind, ()) for part in every)) for kind in Latency}


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, 90th and 99th percentile, largest; nanoseconds."""

    count: int
    median: float
    p90: float
    p99: float
    largest: int


def spread(values: Sequence[int]) -> Spread | None:
    """None of no values."""
    if not values:
        return None
    if len(values) == 1:
        return Spread(1, values[0], values[0], values[0], values[0])
    cuts = quantiles(values, n=100, method="inclusive")
    return Spread(len(values), median(values), cuts[89], cuts[98], max(values))


@dataclass(frozen=True, slots=True)
class SampleDifference:
    """Two samples compared.

    :ivar p: probability of ranks that lie at least so far apart if both were of one distribution (Mann-Whitney, two
        sides, normal approximation with correction for ties and continuity).
    :ivar later: probability that one of the second sample is longer than one of the first, ties half.
    """

    p: float
    later: float


MIN_COMPARED = 8
"""Of fewer values than this on a side nothing is said."""


def mann_whitney(a: Sequence[int], b: Sequence[int]) -> SampleDifference | None:
    """None where a side is too small, or all values are equal."""
    n, m = len(a), len(b)
    if min(n, m) < MIN_COMPARED:
        return None
    rank_sum, ties = _ranks(a, b)
    u_b = n * m - (rank_sum - n * (n + 1) / 2)  # pairs in which the value of b is larger, ties half
    size = n + m
    variance = n * m / 12 * (size + 1 - ties / (size * (size - 1)))
    if variance <= 0:
        return None
    z = max(abs(u_b - n * m / 2) - 0.5, 0.0) / math.sqrt(variance)
    return SampleDifference(math.erfc(z / math.sqrt(2)), u_b / (n * m))


def _ranks(a: Sequence[int], b: Sequence[int]) -> tuple[float, float]:
    """Sum of the ranks of ``a`` among both, ties shared; and the sum of t^3 - t over groups of t ties."""
    both = sorted([(value, 0) for value in a] + [(value, 1) for value in b])
    total, ties, i = 0.0, 0.0, 0
    while i < len(both):
        j = i
        while j < len(both) and both[j][0] == both[i][0]:
            j += 1
        shared = (i + 1 + j) / 2
        total += shared * sum(side == 0 for _, side in both[i:j])
        ties += (j - i) ** 3 - (j - i)
        i = j
    return total, ties


def histogram(values: Sequence[int], low: int, high: int, bins: int) -> list[int]:
    """How many lie in each of ``bins`` ranges of equal ratio between ``low`` and ``high``; the ends take the rest."""
    counts = [0] * bins
    width = math.log(high / low) / bins
    for value in values:
        at = int(math.log(max(value, 1) / low) / width) if value > low else 0
        counts[min(max(at, 0), bins - 1)] += 1
    return counts
