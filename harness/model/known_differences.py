# SPDX-License-Identifier: GPL-2.0-or-later
"""X1..X10: what can be observed to differ between noio and nowait (behaviour.md, end of section F), as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.contract.plan import Backing, Plan, SwapKind
from harness.model.kernels import Variant
from harness.model.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class ObservedDifference:
    """What two kernels showed under one plan, as far as the table asks.

    :ivar np: "page not present" events on either side (total NP).
    :ivar majors: major faults of the vCPU threads on either side (total MAJ_V).
    :ivar outcomes: pairs of outcomes where an item's differ, without order.
    :ivar readers_part: an item's read was submitted by the vCPU thread on one side and by a kworker on the other.
    """

    plan: Plan
    np: tuple[int, int]
    majors: tuple[int, int]
    outcomes: frozenset[frozenset[Outcome]]
    readers_part: bool

    @property
    def tokens_part(self) -> bool:
        """One side had more asynchronous page faults."""
        return self.np[0] != self.np[1]

    @property
    def swaps_anonymous(self) -> bool:
        """Anonymous memory, swapped to a device that takes its time."""
        return self.plan.memory.backing is Backing.ANON and self.plan.swap.kind in (SwapKind.GATED, SwapKind.DELAY)

    @property
    def compresses(self) -> bool:
        """What is swapped out stays compressed in memory (mm/zswap.c)."""
        return dict(self.plan.kernel_params).get("zswap.enabled", "N") in ("Y", "y", "1")

    @property
    def touches_twice(self) -> bool:
        """A page is touched more than once."""
        touched = [item.gpa for item in self.plan.items if item.gpa]
        return len(touched) != len(set(touched))


@dataclass(frozen=True, slots=True)
class KnownDifference:
    """One row of the table.  ``shows``: whether it is what was observed."""

    id: str
    sentence: str
    shows: Callable[[ObservedDifference], bool]


KNOWN_DIFFERENCES = (
    KnownDifference(
        "X1",
        "who submits the read of a missing page: kworker (noio), vCPU thread (nowait)",
        lambda o: o.readers_part,
    ),
    KnownDifference(
        "X2",
        "page-cluster 0: asynchronous (noio), synchronous in the vCPU thread (nowait up to 6.1)",
        lambda o: o.plan.swap.page_cluster == 0 and o.swaps_anonymous and o.tokens_part,
    ),
    KnownDifference(
        "X3",
        "isolated touches: asynchronous each (noio), only while the window is open (nowait up to 6.1)",
        lambda o: o.plan.swap.page_cluster > 0 and o.swaps_anonymous and not o.touches_twice and o.tokens_part,
    ),
    KnownDifference(
        "X4",
        "zram: asynchronous (noio), synchronous (nowait)",
        lambda o: o.plan.swap.kind is SwapKind.ZRAM and o.tokens_part,
    ),
    KnownDifference(
        "X5",
        "zswap: asynchronous (noio), synchronous (nowait)",
        lambda o: o.compresses and o.tokens_part,
    ),
    KnownDifference(
        "X6",
        "memfd: asynchronous (noio with the shmem hook), synchronous (nowait)",
        lambda o: o.plan.memory.backing is Backing.MEMFD and o.tokens_part,
    ),
    KnownDifference(
        "X7",
        "file without read-ahead: asynchronous (noio), synchronous (nowait)",
        lambda o: o.plan.memory.random_advice and o.tokens_part,
    ),
    KnownDifference(
        "X8",
        "neighbour of a page in flight: blocks the vCPU thread (noio), asynchronous (nowait)",
        lambda o: not o.touches_twice and frozenset((Outcome.BLOCK, Outcome.TOKEN)) in o.outcomes,
    ),
    KnownDifference(
        "X9",
        "the same page again: blocks the vCPU thread (noio), repeated fault and halt (nowait)",
        lambda o: o.touches_twice and frozenset((Outcome.BLOCK, Outcome.REPEATED)) in o.outcomes,
    ),
    KnownDifference(
        "X10",
        "major faults: the vCPU thread's stay 0 where the kworker's move (noio)",
        lambda o: (o.majors[0] == 0) != (o.majors[1] == 0) and o.readers_part,
    ),
)


def known_differences(a: Variant | None, b: Variant | None) -> tuple[KnownDifference, ...]:
    """The rows that apply to kernels of these two variants: all for noio beside nowait, in any order, none else."""
    return KNOWN_DIFFERENCES if {a, b} == {Variant.NOIO, Variant.NOWAIT} else ()
