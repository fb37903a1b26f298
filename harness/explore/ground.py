# SPDX-License-Identifier: GPL-2.0-or-later
"""What a random scenario stands on: guest, memory, device, page sets.  Pure: everything comes from ``draw``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import TypeVar

from harness.contract.words import Backing, PageStart, ReadOrder, SwapKind
from harness.scenario.schema import L2, Apf, GuestSpec, Memory, PageSet, Swap

T = TypeVar("T")


def pick(draw: Random, weights: Mapping[T, int]) -> T:
    """One of the keys, each as likely as its weight."""
    return draw.choices(list(weights), list(weights.values()))[0]


@dataclass(frozen=True, slots=True)
class Ground:
    """All of a scenario but its steps."""

    guest: GuestSpec
    apf: Apf
    memory: Memory
    swap: Swap
    pages: dict[str, PageSet]
    l2: L2 = field(default_factory=L2)


BACKINGS: Mapping[tuple[Backing, bool], int] = {
    (Backing.ANON, False): 53,
    (Backing.MEMFD, True): 12,
    (Backing.FILE, True): 28,
    (Backing.FILE, False): 7,
}
_RELEASES = {
    "np": 50, "np:2": 10, "np:3": 4, "repeated": 8, "repeated:2": 4, "repeated:3": 2, "asleep": 6, "asleep:2": 4,
    "step": 8, "after": 4,
}  # fmt: skip
_CPUS = {
    "host": 91,
    "host,-kvm-asyncpf-int": 3,
    "host,-kvm-asyncpf": 2,
    "host,kvm-pv-enforce-cpuid=on": 2,
    "host,-kvm-asyncpf-int,kvm-pv-enforce-cpuid=on": 2,
}
_FLAGS = {9: 72, 0b1011: 10, 0b1101: 4, 0b1111: 2, 1: 4, 3: 2, 0: 4, 8: 2}
_STARTS = {
    "swap": {PageStart.SWAPPED: 60, PageStart.SWAPCACHE: 12, PageStart.POPULATED: 8, PageStart.UNTOUCHED: 8,
             PageStart.ZERO_SWAPPED: 8},
    "zram": {PageStart.SWAPPED: 60, PageStart.POPULATED: 10, PageStart.UNTOUCHED: 10, PageStart.ZERO_SWAPPED: 15},
    "file": {PageStart.DROPPED: 75, PageStart.POPULATED: 15, PageStart.UNTOUCHED: 10},
    "private file": {PageStart.DROPPED: 85, PageStart.UNTOUCHED: 15},
}  # fmt: skip


def draw_ground(draw: Random, backings: Mapping[tuple[Backing, bool], int] = BACKINGS) -> Ground:
    """One of many; nearly all are valid, check.check() has the last word.

    :param backings: of memory, each with whether it is shared, and its weight.
    """
    backing, share = pick(draw, backings)
    memory = Memory(backing, share, random_advice=backing is not Backing.ANON and draw.random() < 0.08)
    swap = _swap(draw, backing)
    guest = GuestSpec(
        machine=pick(draw, {"microvm": 95, "q35": 5}),
        vcpus=pick(draw, {1: 35, 2: 38, 3: 15, 4: 12}),
        cpu=pick(draw, _CPUS),
        irqchip=pick(draw, {"on": 94, "split": 6}),
        cpu_pm=draw.random() < 0.05,
        idle=pick(draw, {"hlt": 85, "spin": 15}),
    )
    apf = Apf(
        en_flags=pick(draw, _FLAGS),
        vector=pick(draw, {0xF3: 94, 0xF4: 3, 0: 3}),
        lapic_enabled=draw.random() >= 0.04,
        zero_token=draw.random() >= 0.03,
        ack=draw.random() >= 0.03,
        ack_first=draw.random() < 0.05,
    )
    return Ground(guest, apf, memory, swap, _page_sets(draw, memory, swap))


def _swap(draw: Random, backing: Backing) -> Swap:
    kinds = {SwapKind.GATED: 86, SwapKind.DELAY: 5}
    if backing is not Backing.FILE:
        kinds[SwapKind.ZRAM] = 9
    kind = pick(draw, kinds)
    clusters = pick(draw, {3: 40, 0: 20, 1: 12, 2: 12, 4: 8, 5: 8})
    rotational = kind is not SwapKind.ZRAM and draw.random() < 0.12
    if kind is SwapKind.ZRAM:
        return Swap(kind, page_cluster=clusters)
    if kind is SwapKind.DELAY:
        return Swap(kind, draw.choice((30, 60, 120)), rotational, clusters)
    release = pick(draw, _RELEASES)
    delay = draw.choice((20, 50)) if release == "after" else Swap().delay_ms
    order = pick(draw, {ReadOrder.TARGET_LAST: 75, ReadOrder.GIVEN: 13, ReadOrder.REVERSE: 12})
    return Swap(kind, delay, rotational, clusters, release=release, order=order)


def _page_sets(draw: Random, memory: Memory, swap: Swap) -> dict[str, PageSet]:
    if memory.backing is Backing.FILE:
        starts = _STARTS["file" if memory.share else "private file"]
    else:
        starts = _STARTS["zram" if swap.kind is SwapKind.ZRAM else "swap"]
    sets: dict[str, PageSet] = {}
    mixed = draw.random() < 0.35  # sets that lie next to each other: neighbours in different states
    at = draw.choice((0, 16, 500))
    if memory.backing is Backing.FILE:  # a window must lie in one piece on the device: no hole beside a dropped page.
        # The first pages lie in one block of fault-around with what the guest uses all the time.
        mixed, starts, at = mixed and draw.random() < 0.7, dict(starts), max(at, 16)
        if mixed:
            del starts[PageStart.UNTOUCHED]
    for name in "fgh"[: pick(draw, {1: 45, 2: 35, 3: 20})]:
        groups = pick(draw, {1: 50, 2: 25, 3: 15, 4: 10})
        run = pick(draw, {1: 25, 2: 15, 3: 8, 4: 12, 8: 20, 16: 14, 40: 6})
        stride = max(run, draw.choice((run, run + 1, 16, 64)))
        sets[name] = PageSet(groups, run, stride, at if mixed else -1, pick(draw, starts))
        at += (groups - 1) * stride + run + draw.choice((0, 0, 1, 8))
    return sets


MOSTLY_FILES: Mapping[tuple[Backing, bool], int] = {
    (Backing.FILE, True): 60,
    (Backing.ANON, False): 28,
    (Backing.MEMFD, True): 8,
    (Backing.FILE, False): 4,
}
"""A page of a file that is alone is never polled for, so that more becomes asynchronous."""
ALONE: Mapping[tuple[Backing, bool], int] = {
    (Backing.FILE, True): 70,
    (Backing.ANON, False): 26,
    (Backing.FILE, False): 4,
}
"""Without shmem, whose reads in clusters bring pages that nobody asked for."""
CROWD = "m"
"""The page set of a crowded ground that has more pages than a vCPU may have outstanding."""
_HOLDING = {
    "asleep": 36, "asleep:2": 2, "step": 20, "np": 16, "np:2": 8, "np:3": 2, "repeated": 10, "halted": 4,
    "repeated:2": 2,
}  # fmt: skip


def nested(draw: Random, ground: Ground) -> Ground:
    """The guest runs an L2, and may have asked for #PF exits."""
    masked = draw.random() >= 0.15
    l2 = L2(
        npt=draw.random() >= 0.25,
        intercept_pf=draw.random() < 0.2,
        intercept_intr=masked or draw.random() < 0.5,
        intercept_vintr=draw.random() < 0.1,
        intr_masking=masked,
        l1_interrupts=draw.random() >= 0.08,
        inject=draw.random() < 0.08,
        virq=draw.random() < 0.08,
    )
    flags = pick(draw, {0b1101: 58, 0b1111: 17, 9: 13, 0b1011: 8, 0: 2, 0b0101: 2})
    return replace(ground, l2=l2, apf=replace(ground.apf, en_flags=flags))


def crowded(draw: Random, ground: Ground) -> Ground:
    """One set has more pages than a vCPU may have outstanding (ASYNC_PF_PER_VCPU), far from each other or in pairs."""
    of_file = ground.memory.backing is Backing.FILE
    run = pick(draw, {1: 75, 2: 25} if of_file else {1: 10, 2: 80, 4: 10})
    start = PageStart.DROPPED if of_file else PageStart.SWAPPED
    crowd = PageSet(-(-draw.randint(66, 84) // run), run, draw.choice((16, 64, 160)), -1, start)
    swap = ground.swap
    if swap.kind is SwapKind.GATED:
        rule = pick(draw, {"asleep": 46, "np": 34, "np:64": 4, "np:32": 4, "step": 6, "repeated": 6})
        swap = replace(swap, release=rule, delay_ms=Swap().delay_ms)
    guest = replace(ground.guest, memory_mib=128)
    return replace(ground, guest=guest, swap=swap, pages={**ground.pages, CROWD: crowd})


def holding(draw: Random, ground: Ground) -> Ground:
    """Reads are held on for something that comes after their fault, as a rule."""
    if ground.swap.kind is not SwapKind.GATED:
        return ground
    return replace(ground, swap=replace(ground.swap, release=pick(draw, _HOLDING), delay_ms=Swap().delay_ms))


def at_work(draw: Random, ground: Ground) -> Ground:
    """The guest is set up as one that uses what it asks for, and there are more pages far from each other."""
    apf = Apf(en_flags=pick(draw, {9: 78, 0b1011: 14, 0b1101: 8}), ack_first=draw.random() < 0.1)
    start = PageStart.DROPPED if ground.memory.backing is Backing.FILE else PageStart.SWAPPED
    more = PageSet(draw.randint(4, 9), draw.choice((1, 2, 4)), 64, -1, start)
    guest = replace(ground.guest, cpu="host", vcpus=pick(draw, {1: 60, 2: 30, 3: 10}))
    return replace(ground, guest=guest, apf=apf, pages={**ground.pages, "n": more})
