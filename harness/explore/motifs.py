# SPDX-License-Identifier: GPL-2.0-or-later
"""What a random program is made of: short sequences of steps after which something interesting may happen.

Each motif is a function of the scene.  They follow each other freely, so that what one has set up the next one meets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random

from harness.contract.words import Access, Backing, HostWord, PageStart, SwapKind
from harness.explore.ground import Ground, pick
from harness.scenario.schema import HostStep, Step


@dataclass(slots=True)
class Scene:
    """Where the program has got to.

    :ivar touched: page names so far, the latest last.
    :ivar by_l2: the share of touches that an L2 makes.
    :ivar waits: of a hundred touches, behind which nothing starts before they have ended.
    """

    draw: Random
    ground: Ground
    touched: list[str]
    by_l2: float = 0.0
    waits: int = 40

    @property
    def held(self) -> bool:
        """The device is one that can be told to hold reads."""
        return self.ground.swap.kind is SwapKind.GATED

    def vcpu(self) -> int:
        return self.draw.randrange(self.ground.guest.vcpus)

    def page(self) -> str:
        """A page: often one that was touched, or its neighbour."""
        if self.touched and self.draw.random() < 0.35:
            return self.draw.choice(self.touched[-4:])
        if self.touched and self.draw.random() < 0.4:
            name, _, rest = self.draw.choice(self.touched[-4:]).partition("[")
            pages = self.ground.pages[name]
            at = int(rest[:-1]) + self.draw.choice((-1, 1, 1, 2))
            return f"{name}[{min(max(at, 0), pages.groups * pages.run - 1)}]"
        name = self.draw.choice(list(self.ground.pages))
        pages = self.ground.pages[name]
        return f"{name}[{self.draw.randrange(pages.groups * pages.run)}]"

    def touch(self) -> Step:
        page = self.page()
        self.touched.append(page)
        return replace(self.how(), touch=page)

    def how(self) -> Step:
        """A step that lacks its action: who makes the access, and how."""
        draw = self.draw
        cpl = pick(draw, {3: 65, 0: 35})
        return Step(
            level=2 if self.by_l2 and draw.random() < self.by_l2 else 1,
            vcpu=self.vcpu(),
            access=pick(draw, {Access.READ: 65, Access.WRITE: 35}),
            cpl=cpl,
            interrupts=draw.random() >= 0.12,
            shadow=False,
            then=pick(draw, {"go-on": 100 - self.waits, "wait": self.waits}),
            pause_us=pick(draw, {0: 80, 200: 6, 3000: 8, 20000: 6}),
        )


def _touch(s: Scene) -> Iterator[Step]:
    yield s.touch()


def _again(s: Scene) -> Iterator[Step]:
    """The same page twice or more, perhaps on several vCPUs."""
    first = replace(s.touch(), then="go-on")
    yield first
    for _ in range(s.draw.randint(1, 3)):
        yield replace(s.how(), touch=first.touch)


def _row(s: Scene) -> Iterator[Step]:
    """Neighbours, in order or in strides."""
    name = s.draw.choice(list(s.ground.pages))
    pages = s.ground.pages[name]
    count = pages.groups * pages.run
    first = s.draw.randrange(count)
    last = min(count, first + s.draw.choice((2, 3, 4, 6)))
    step = s.draw.choice(("", "", ":2"))
    s.touched += [f"{name}[{n}]" for n in range(first, last)]
    yield replace(s.how(), touch=f"{name}[{first}:{last}{step}]")


def _everybody(s: Scene) -> Iterator[Step]:
    """Each vCPU touches the same page or one beside it."""
    page = s.page()
    s.touched.append(page)
    for vcpu in range(s.ground.guest.vcpus):
        yield replace(s.how(), vcpu=vcpu, touch=page if s.draw.random() < 0.6 else s.page())


def _special(s: Scene) -> Iterator[Step]:
    """Accesses in an interrupt shadow, or without paging."""
    if s.draw.random() < 0.7:
        yield replace(s.touch(), cpl=0, interrupts=True, shadow=True, level=1)
    else:
        yield replace(s.touch(), cpl=0, no_paging=True, level=1)


def _enable(s: Scene) -> Iterator[Step]:
    """EN off, on, or changed."""
    vcpu = s.vcpu()
    flags = pick(s.draw, {9: 50, 0b1011: 15, 1: 6, 3: 4, 8: 5, 0b1101: 5, 0: 15})
    value: int | str = f"own|{flags}" if flags else 0
    if s.draw.random() < 0.4:
        yield Step(wrmsr="EN", value=0, vcpu=vcpu)
        if s.draw.random() < 0.6:
            yield replace(s.touch(), vcpu=vcpu)
        value = f"own|{flags or 9}"
    yield Step(wrmsr="EN", value=value, vcpu=vcpu, pause_us=s.draw.choice((0, 0, 5000)))


def _vector(s: Scene) -> Iterator[Step]:
    yield Step(wrmsr="INT", value=pick(s.draw, {0xF3: 60, 0xF4: 30, 0x1F3: 5, 0: 5}), vcpu=s.vcpu())


def _acknowledge(s: Scene) -> Iterator[Step]:
    yield Step(wrmsr="ACK", value=pick(s.draw, {1: 80, 0: 15, 3: 5}), vcpu=s.vcpu())


def _lapic(s: Scene) -> Iterator[Step]:
    vcpu, switch = s.vcpu(), "base-" if s.draw.random() < 0.3 else ""
    yield Step(lapic=f"{switch}off", vcpu=vcpu)
    if s.draw.random() < 0.5:
        yield replace(s.touch(), then="go-on", vcpu=vcpu)
    yield Step(lapic=f"{switch}on", vcpu=vcpu, pause_us=s.draw.choice((0, 2000, 20000)))


def _paging(s: Scene) -> Iterator[Step]:
    if s.draw.random() < 0.7:
        yield Step(paging="flip", vcpu=s.vcpu())
    else:
        yield Step(paging="off", vcpu=s.vcpu(), pause_us=s.draw.choice((100, 5000, 20000)))


def _ticking(s: Scene) -> Iterator[Step]:
    """A timer ticks while a vCPU sleeps in the halt of a kernel-mode access."""
    vcpu = s.vcpu()
    yield Step(timer_us=s.draw.choice((5000, 20000, 50000)), vcpu=vcpu)
    yield replace(s.touch(), vcpu=vcpu, cpl=0, interrupts=True)
    if s.draw.random() < 0.8:
        yield Step(timer_us=0, vcpu=vcpu, pause_us=s.draw.choice((0, 10000)))


def _zero(s: Scene) -> Iterator[Step]:
    yield Step(clear_token=True, vcpu=s.vcpu())


def _pause(s: Scene) -> Iterator[Step]:
    yield Step(pause=True, vcpu=s.vcpu(), pause_us=s.draw.choice((100, 2000, 20000)), interrupts=s.draw.random() < 0.8)


def _wait_all(s: Scene) -> Iterator[Step]:
    yield Step(wait_all=True, vcpu=s.vcpu())


def _stopped(s: Scene) -> Iterator[Step]:
    """The machine stands still for a moment, or the device does."""
    asleep = HostStep(HostWord.SLEEP, s.draw.choice((1, 20, 60)))
    around = (HostWord.STOP, HostWord.CONT)
    if s.ground.swap.kind in (SwapKind.GATED, SwapKind.DELAY) and s.draw.random() < 0.5:
        around = (HostWord.FREEZE, HostWord.THAW)
    yield Step(host=(HostStep(around[0]), asleep, HostStep(around[1])), vcpu=s.vcpu())


def _reset(s: Scene) -> Iterator[Step]:
    if s.ground.guest.vcpus == 1:  # the order of several vCPUs is not followed over a reset
        yield Step(host=(HostStep(HostWord.RESET),), vcpu=s.vcpu())


def _read_by_another(s: Scene) -> Iterator[Step]:
    """Another process reads a page of the file while the guest wants it."""
    dropped = [name for name, pages in s.ground.pages.items() if pages.start is PageStart.DROPPED]
    if s.ground.memory.backing is not Backing.FILE or not dropped:
        return
    name = s.draw.choice(dropped)
    pages = s.ground.pages[name]
    page = f"{name}[{s.draw.randrange(pages.groups * pages.run)}]"
    s.touched.append(page)
    yield Step(host=(HostStep(HostWord.LOCK_READ, page=page),), vcpu=s.vcpu())
    yield replace(s.how(), touch=page)


Motif = Callable[[Scene], Iterator[Step]]

MOTIFS: dict[Motif, int] = {
    _touch: 30, _again: 16, _row: 12, _everybody: 10, _special: 5, _enable: 8, _vector: 2, _acknowledge: 2, _lapic: 3,
    _paging: 3, _ticking: 4, _zero: 1, _pause: 4, _wait_all: 6, _stopped: 3, _reset: 1, _read_by_another: 2,
}  # fmt: skip


def draw_steps(scene: Scene, motifs: Mapping[Motif, int]) -> tuple[Step, ...]:
    """A program of a few motifs; a device that waits for the host word "release" gets it at some place."""
    draw, ground = scene.draw, scene.ground
    steps: list[Step] = []
    for _ in range(pick(draw, {1: 8, 2: 14, 3: 20, 4: 20, 6: 20, 9: 12, 12: 6})):
        steps += pick(draw, motifs)(scene)
    if ground.swap.kind is SwapKind.GATED and ground.swap.release == "step":
        at = draw.randint(min(1, len(steps)), len(steps))
        steps.insert(at, Step(host=(HostStep(HostWord.RELEASE),), vcpu=scene.vcpu()))
    return tuple(steps or _touch(scene))
