# SPDX-License-Identifier: GPL-2.0-or-later
"""Motifs since generation 6: interrupts that are kept off in each way there is, accesses that the processor makes when
it delivers an event, and what the host does to a guest beside that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from harness.contract.words import Access, Backing, By, HostWord, PageStart
from harness.explore.ground import Ground, nested, pick
from harness.explore.motifs import Scene
from harness.explore.outstanding import fresh
from harness.scenario.schema import HostStep, Step


def kept_off(s: Scene) -> Iterator[Step]:
    """Something outstanding, as a rule, and then the vCPU takes no interrupt for a while."""
    vcpu = s.vcpu()
    if s.draw.random() < 0.8:
        for step in fresh(s):
            yield replace(step, vcpu=vcpu, cpl=pick(s.draw, {3: 80, 0: 20}), interrupts=True, then="go-on")
    yield pick(s.draw, {_clgi: 35, _masked: 45, _interrupted: 20})(s, vcpu)
    if s.draw.random() < 0.4:
        yield replace(s.touch(), vcpu=vcpu)


def _clgi(s: Scene, vcpu: int) -> Step:
    """An access with GIF = 0."""
    return replace(s.touch(), vcpu=vcpu, cpl=0, interrupts=False, gif=False, level=1)


def _masked(s: Scene, vcpu: int) -> Step:
    """RFLAGS.IF, the task priority, or an interrupt in service keeps them off."""
    tpr, in_service = pick(s.draw, {(False, False): 20, (True, False): 40, (False, True): 40})
    return _meanwhile(s, Step(vcpu=vcpu, interrupts=False, tpr=tpr, in_service=in_service))


def _interrupted(s: Scene, vcpu: int) -> Step:
    """One of the lowest priority is in service, which a ready interrupt interrupts."""
    return _meanwhile(s, Step(vcpu=vcpu, in_service=True))


def _meanwhile(s: Scene, step: Step) -> Step:
    """Time goes by, or the host is asked for something."""
    if s.held and s.draw.random() < 0.6:
        word = HostWord.RELEASE if s.ground.swap.release == "step" else HostWord.WAIT_SETTLED
        return replace(step, host=(HostStep(word),))
    return replace(step, pause=True, pause_us=s.draw.choice((200, 3000, 20000)))


def delivered(s: Scene) -> Iterator[Step]:
    """The processor makes an access when it delivers an event: of the vCPU's own, or the #PF that tells the one before.

    What it touches may wait for something else already, or be another's.
    """
    by = pick(s.draw, {By.INTERRUPT: 35, By.EXCEPTION: 30, By.TOKEN: 25, By.NMI: 10})
    vcpu = s.vcpu()
    if by is By.TOKEN:
        yield replace(s.touch(), vcpu=vcpu, cpl=3, interrupts=True, then="go-on", pause_us=0)
    how = replace(s.touch(), by=by, vcpu=vcpu, level=1, pause_us=0)
    match by:
        case By.TOKEN:
            yield replace(how, access=Access.WRITE)
        case By.NMI:
            yield replace(how, cpl=0)
        case _:
            yield how


def state_read(s: Scene) -> Iterator[Step]:
    """QEMU reads the state of all vCPUs, and writes it back."""
    yield Step(host=(HostStep(HostWord.SYNC, s.draw.choice((1, 1, 2, 4))),), vcpu=s.vcpu())


def nmi_for_all(s: Scene) -> Iterator[Step]:
    """Each vCPU is given an NMI, also one that is halted."""
    yield Step(host=(HostStep(HostWord.NMI),), vcpu=s.vcpu())


def reclaimed(s: Scene) -> Iterator[Step]:
    """A page of the file is taken from the guest, as a rule one that it has touched, and it wants it again."""
    dropped = [name for name, pages in s.ground.pages.items() if pages.start is PageStart.DROPPED]
    if s.ground.memory.backing is not Backing.FILE or not s.ground.memory.share or not dropped:
        return
    known = [page for page in s.touched if page.partition("[")[0] in dropped]
    name = s.draw.choice(dropped)
    page = s.draw.choice(known) if known else f"{name}[0]"
    vcpu = s.vcpu()
    if s.draw.random() < 0.7:
        yield Step(wait_all=True, vcpu=vcpu)
    yield Step(host=(HostStep(HostWord.RECLAIM, page=page),), vcpu=vcpu)
    s.touched.append(page)
    yield replace(s.how(), touch=page)


def nested_elsewhere(draw: Random, ground: Ground) -> Ground:
    """As nested(); L2 may have its pages at other addresses than L1."""
    found = nested(draw, ground)
    return replace(found, l2=replace(found.l2, moved=found.l2.npt and draw.random() < 0.35))


def in_sockets(draw: Random, ground: Ground) -> Ground:
    """The vCPUs may be in sockets of several, so that their APIC ids have holes."""
    guest = ground.guest
    if guest.vcpus > 1 and draw.random() < 0.4:
        guest = replace(guest, cores=draw.choice((2, 3, 5)))
    if draw.random() < 0.25:
        guest = replace(guest, machine="q35")
    return replace(ground, guest=guest)
