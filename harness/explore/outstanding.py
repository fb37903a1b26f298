# SPDX-License-Identifier: GPL-2.0-or-later
"""Motifs since generation 4: very many works outstanding, or some while MSRs are written or a vCPU starts anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from harness.contract.gate import parse_rule
from harness.contract.words import HostWord, PageStart, Release, SwapKind
from harness.explore.ground import CROWD, pick
from harness.explore.motifs import Scene
from harness.scenario.schema import HostStep, Step


def crowd(s: Scene) -> Iterator[Step]:
    """One vCPU touches most of the crowd, one page after the other: more than it may have outstanding, perhaps."""
    pages = s.ground.pages.get(CROWD)
    if pages is None:
        return
    count = pages.groups * pages.run
    first, last = s.draw.choice((0, 0, 1, 5)), count - s.draw.choice((0, 0, 1, 5))
    s.touched += [f"{CROWD}[{n}]" for n in range(first, last)]
    cpl, then = pick(s.draw, {(3, "go-on"): 75, (3, "wait"): 15, (0, "go-on"): 10})
    how = replace(s.how(), cpl=cpl, then=then, interrupts=True, pause_us=0)
    yield replace(how, touch=f"{CROWD}[{first}:{last}]")


def own_fault(s: Scene) -> Iterator[Step]:
    """A #PF of the guest's own: it must not be taken for a token."""
    yield Step(page_fault=True, vcpu=s.vcpu())


def start_anew(s: Scene) -> Iterator[Step]:
    """Another vCPU is given an INIT and a SIPI, or the guest resets the machine."""
    vcpus = s.ground.guest.vcpus
    if vcpus > 1 and s.draw.random() < 0.6:
        yield Step(init=s.draw.randrange(1, vcpus), vcpu=0)
    elif s.draw.random() < 0.5:
        yield Step(host=(HostStep(HostWord.RESET),), vcpu=s.vcpu())
    else:
        yield Step(reset=True, vcpu=s.vcpu())


def registers_meanwhile(s: Scene) -> Iterator[Step]:
    """Faults of one vCPU, and while they are outstanding it writes its MSRs, and touches more."""
    yield from _registers(s, s.touch)


def registers_while_held(s: Scene) -> Iterator[Step]:
    """The same, of pages that nobody has wanted before: their reads are certainly held."""
    yield from _registers(s, lambda: _fresh(s))


def _registers(s: Scene, touch: Callable[[], Step]) -> Iterator[Step]:
    draw, vcpu = s.draw, s.vcpu()
    for _ in range(pick(draw, {1: 40, 2: 35, 3: 15, 5: 10})):
        yield replace(touch(), vcpu=vcpu, cpl=pick(draw, {3: 80, 0: 20}), interrupts=True, then="go-on")
    if s.ground.swap.kind is SwapKind.GATED and draw.random() < 0.6:
        yield Step(host=(HostStep(HostWord.WAIT_SETTLED),), vcpu=vcpu)
    for _ in range(pick(draw, {1: 45, 2: 35, 3: 20})):
        yield _write(s, vcpu)
        if draw.random() < 0.4:
            yield replace(s.touch(), vcpu=vcpu)
    if draw.random() < 0.85:
        yield Step(wrmsr="EN", value=f"own|{pick(draw, {9: 70, 0b1011: 20, 0b1101: 10})}", vcpu=vcpu)
    if draw.random() < 0.3:
        yield Step(wait_all=True, vcpu=vcpu)
    if draw.random() < 0.6:
        yield replace(s.touch(), vcpu=vcpu)


def fresh(s: Scene) -> Iterator[Step]:
    """A page that nobody has wanted, nor a neighbour of it."""
    yield _fresh(s)


def let_go(s: Scene, steps: Sequence[Step]) -> Iterator[Step]:
    """What the held reads wait for comes at last: from the vCPU that has most to do, whose program is over last."""
    if s.ground.swap.kind is not SwapKind.GATED:
        return
    rule, vcpus = parse_rule(s.ground.swap.release), s.ground.guest.vcpus
    order = sorted(range(vcpus), key=lambda vcpu: -sum(step.vcpu == vcpu for step in steps))
    for n in range(min(rule.count, vcpus) if rule.word is not Release.REPEATED else rule.count):
        vcpu = order[n % vcpus]
        match rule.word:
            case Release.ASLEEP:
                yield replace(_fresh(s), vcpu=vcpu, level=1, cpl=3, interrupts=False)
            case Release.HALTED:
                yield replace(_fresh(s), vcpu=vcpu, level=1, cpl=0, interrupts=True)
            case Release.REPEATED if s.touched:
                yield replace(s.how(), touch=s.touched[-1], vcpu=vcpu, interrupts=True)
            case Release.NP:
                yield replace(_fresh(s), vcpu=vcpu, interrupts=True, then="go-on")
            case Release.STEP:
                yield Step(host=(HostStep(HostWord.RELEASE),), vcpu=vcpu)
            case _:
                return


def _fresh(s: Scene) -> Step:
    """A touch of a page of a group in which nobody has touched any, if there is one that has to be read."""
    groups = [
        (name, group)
        for name, pages in s.ground.pages.items()
        if pages.start in (PageStart.SWAPPED, PageStart.DROPPED)
        for group in range(pages.groups)
        if not any(f"{name}[{n}]" in s.touched for n in range(group * pages.run, (group + 1) * pages.run))
    ]
    if not groups:
        return s.touch()
    name, group = s.draw.choice(groups)
    run = s.ground.pages[name].run
    page = f"{name}[{group * run + s.draw.randrange(run)}]"
    s.touched.append(page)
    return replace(s.how(), touch=page)


def _write(s: Scene, vcpu: int) -> Step:
    match pick(s.draw, {"EN": 50, "INT": 35, "ACK": 15}):
        case "EN":
            flags = pick(s.draw, {0: 45, 9: 30, 0b1011: 10, 0b1101: 5, 1: 5, 8: 5})
            return Step(wrmsr="EN", value=f"own|{flags}" if flags else 0, vcpu=vcpu)
        case "INT":
            return Step(wrmsr="INT", value=pick(s.draw, {0xF3: 30, 0xF4: 64, 0x1F3: 3, 0: 3}), vcpu=vcpu)
        case _:
            return Step(wrmsr="ACK", value=1, vcpu=vcpu)
