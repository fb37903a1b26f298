# SPDX-License-Identifier: GPL-2.0-or-later
"""The host words of a scenario: each with what must hold where it stands, or the agent could not do it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import assert_never

from harness.contract.gate import HELD
from harness.contract.plan import EN_DELIVERS, Backing, HostWord, PageStart, SwapKind
from harness.contract.words import Release
from harness.errors import ScenarioError
from harness.model.delivery import ASYNC_PF_PER_VCPU
from harness.scenario import bounds
from harness.scenario.pages import select
from harness.scenario.schema import HostStep, Scenario


def check_host(s: Scenario, steps: tuple[HostStep, ...], placed: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Problems of one list of host steps as ".host[i]...: text"."""
    if len(steps) > bounds.MAX_HOST_STEPS:
        yield f".host: {len(steps)} entries, at most {bounds.MAX_HOST_STEPS} are allowed"
        return
    for i in range(len(steps)):
        for problem in _one(s, steps, i, placed):
            yield f".host[{i}]{problem}"


def _one(s: Scenario, steps: tuple[HostStep, ...], i: int, placed: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    h = steps[i]
    match h.do:
        case HostWord.FREEZE | HostWord.THAW:
            yield from _device(s, h, SwapKind.DELAY, *HELD)
            yield from _nothing(h, arg=True)
        case HostWord.RELEASE:
            yield from _waiting(s, h)
            yield from _nothing(h, arg=True)
        case HostWord.DELAY:
            yield from _device(s, h, SwapKind.DELAY)
            yield from bounds.number(".arg", h.arg, 0, bounds.MAX_DELAY_MS)
            yield from _nothing(h)
        case HostWord.STOP | HostWord.CONT | HostWord.RESET:
            yield from _nothing(h, arg=True)
        case HostWord.CHANGE_MM:
            yield from _nothing(h, arg=True)
            if s.memory.backing is Backing.MEMFD:
                yield ": change-mm waits for who reads a page of shmem, which keeps mmap_lock (shmem_swapin_folio)"
        case HostWord.NMI:
            yield from _nothing(h, arg=True)
            yield from _taken(s)
        case HostWord.PLUG:
            yield from _nothing(h)
            yield from _away(s, steps, i)
        case HostWord.SAVEVM | HostWord.LOADVM:
            yield from _nothing(h, arg=True)
            yield from _snapshot(s, steps, i)
        case HostWord.SLEEP:
            yield from bounds.number(".arg", h.arg, 0, s.deadline_s * 1000)
            yield from _nothing(h)
        case HostWord.WAIT_NP:
            yield from _count(h, ASYNC_PF_PER_VCPU * s.guest.vcpus)
            yield from _nothing(h)
        case HostWord.WAIT_DONE:
            yield from _nothing(h, arg=True)
        case HostWord.WAIT_SETTLED:
            yield from _waiting(s, h)
            yield from _nothing(h, arg=True)
        case HostWord.WAIT_HALTED:
            yield from _waiting(s, h)
            yield from _count(h, s.guest.vcpus)
            yield from _nothing(h)
        case HostWord.SYNC:
            yield from _count(h, bounds.MAX_SYNCS)
            yield from _nothing(h)
        case HostWord.LOCK_READ:
            yield from _of_file_page(s, h, placed)
            if not _takes_time(s):
                yield ": lock-read waits until its process sleeps on the read, and reads end at once here"
        case HostWord.RECLAIM:
            yield from _of_file_page(s, h, placed)
            if not s.memory.share:  # a private page that was written is anonymous
                yield ": reclaim frees a page of the file, and needs memory.share = true"
        case _:
            assert_never(h.do)


def _nothing(h: HostStep, *, arg: bool = False) -> Iterator[str]:
    """The word takes no page, nor, with ``arg``, a number."""
    if h.page:
        yield f".page: {h.do} concerns no page"
    if arg and h.arg:
        yield f".arg: {h.do} takes no number"


def _count(h: HostStep, high: int) -> Iterator[str]:
    """How often, or how many: what is left out reads as 0."""
    if h.arg:
        yield from bounds.number(".arg", h.arg, 1, high)
    else:
        yield f".arg: {h.do} needs a number, arg = 1 to {high}"


def _device(s: Scenario, h: HostStep, *kinds: SwapKind) -> Iterator[str]:
    if s.swap.kind not in kinds:
        yield f": {h.do} needs swap.kind = {' or '.join(kinds)}, and it is {s.swap.kind}"


def _waiting(s: Scenario, h: HostStep) -> Iterator[str]:
    """Reads that end after a time, or at once, are held for nothing that a word could be about."""
    yield from _device(s, h, *HELD)
    if s.swap.kind in HELD and s.swap.release.partition(":")[0] in (Release.AFTER, Release.OPEN):
        yield f": {h.do} is about reads that wait for something, and with release = {s.swap.release} they do not"


def _taken(s: Scenario) -> Iterator[str]:
    """The probe guest takes an NMI in 64-bit code of its own."""
    such = (i for i, t in enumerate(s.steps) if t.level == 2 or t.paging or t.no_paging or not t.gif)
    if (first := next(such, None)) is not None:
        yield f": an NMI is taken neither by an L2 nor with paging off or GIF = 0, as in $.steps[{first}]"
    if s.guest.irqchip == "off":  # KVM_NMI is QEMU's answer to a LAPIC in KVM
        yield ": an NMI by the LAPIC of KVM needs guest.irqchip = on or split"


def _takes_time(s: Scenario) -> bool:
    """Whether some read of the device is held or delayed, be it by a host word."""
    by_clock = s.swap.kind is SwapKind.DELAY or s.swap.release == Release.AFTER
    at_once = s.swap.release == Release.OPEN or (by_clock and not s.swap.delay_ms)
    lists = (*(t.host for t in s.steps), *(t.host for t in s.timed))
    words = {h.do for host in lists for h in host}
    return not at_once or bool(words & {HostWord.FREEZE, HostWord.DELAY})


def _away(s: Scenario, steps: tuple[HostStep, ...], i: int) -> Iterator[str]:
    """A vCPU can be plugged in while it is out: behind a step that ejects it, in the order of one vCPU's steps."""
    vcpu = steps[i].arg
    by = next((t.vcpu for t in s.steps if t.eject == vcpu), None)
    if by is None:
        yield f".arg: no step ejects vCPU {vcpu}"
        return
    out = False
    for t in (t for t in s.steps if t.vcpu == by):
        out = out or t.eject == vcpu
        for n, h in enumerate(t.host):
            if t.host is steps and n == i:
                if not out:
                    yield f".arg: vCPU {vcpu} is there: a plug stands behind the step that ejects it"
                return
            out = out and (h.do, h.arg) != (HostWord.PLUG, vcpu)
    yield f": nothing puts this plug behind the eject of vCPU {vcpu}: put it into the steps of vCPU {by}"


def _snapshot(s: Scenario, steps: tuple[HostStep, ...], i: int) -> Iterator[str]:
    """QEMU would stop the machine for either and let it go on: when, no plan could say.  All RAM is read for a
    snapshot, and after loadvm the guest's memory is the snapshot's: what it had done in between would be forgotten."""
    h, before = steps[i], [step.do for step in steps[:i]]
    stopped = next((do for do in reversed(before) if do in (HostWord.STOP, HostWord.CONT)), None)
    if stopped is not HostWord.STOP:
        yield f": {h.do} needs a machine that stands: put stop before it, in the same list"
    for where, other in _beside(s, steps):
        goes_on = [step.do for step in other if step.do in (HostWord.CONT, HostWord.SAVEVM, HostWord.LOADVM)]
        if goes_on:
            yield (
                f": {goes_on[0]} of {where} may come before {h.do}, whatever the times say: put all that is done with a"
                " machine that stands into one list (sleep between)"
            )
    if s.memory.backing is not Backing.ANON:
        yield f": {h.do} reads and writes all of the guest's memory, of which only anonymous one is modelled"
    if h.do is HostWord.SAVEVM and _held(s, steps, i):
        yield ": savevm reads every page, and pages are held that nothing lets come before it: it would never end"
    if h.do is HostWord.SAVEVM and s.swap.error:
        yield ": savevm reads every page, and the read of one of swap.error fails: a SIGBUS would end QEMU"
    if h.do is HostWord.LOADVM and _names_a_hole(s):
        yield (
            ": loadvm writes MSR_KVM_ASYNC_PF_EN as the guest had stored it, and KVM refuses an address without memory:"
            " QEMU would end itself (kvm_buf_set_msrs)"
        )
    if h.do is HostWord.LOADVM:
        saved = max((n for n, do in enumerate(before) if do is HostWord.SAVEVM), default=-1)
        if saved < 0 or HostWord.CONT in before[saved:]:
            yield ": loadvm loads what savevm saved since the machine was stopped, in the same list"


def _names_a_hole(s: Scenario) -> bool:
    """Whether EN is written with an address behind the guest's memory, which a kernel may store though it refuses it
    (arch/x86/kvm/x86.c:kvm_pv_enable_async_pf up to 7.1)."""
    written = [t.value for t in s.steps if t.wrmsr == "EN" and isinstance(t.value, int)]  # "own" lies in memory
    named = [value & -64 for value in written if value & EN_DELIVERS == EN_DELIVERS]
    return any(gpa >= s.guest.memory_mib << 20 for gpa in (s.apf.en_gpa, *named))


def _beside(s: Scenario, steps: tuple[HostStep, ...]) -> Iterator[tuple[str, tuple[HostStep, ...]]]:
    """The other lists that may be performed while this one is, and where they stand: all but those of its own vCPU."""
    vcpus = {t.vcpu for t in s.steps if t.host is steps}
    yield from ((f"timed[{n}]", t.host) for n, t in enumerate(s.timed) if t.host is not steps)
    yield from ((f"steps[{n}]", t.host) for n, t in enumerate(s.steps) if t.vcpu not in vcpus)


def _held(s: Scenario, steps: tuple[HostStep, ...], i: int) -> bool:
    """Whether pages that start on the device are held when this word's turn comes, whatever the guest has done: by a
    freeze, or for a release; one that comes at a time of its own is not looked at."""
    away = (PageStart.UNTOUCHED,) if s.swap.kind is SwapKind.USERFAULT else (PageStart.SWAPPED, PageStart.ZERO_SWAPPED)
    if not any(p.start in away for p in s.pages.values()):
        return False
    if any(h.do in (HostWord.RELEASE, HostWord.THAW) for timed in s.timed for h in timed.host):
        return False
    before = takewhile(lambda host: host is not steps, (t.host for t in s.steps))
    held, frozen = s.swap.release == Release.STEP, False
    for do in (h.do for host in (*before, steps[:i]) for h in host):
        held = held and do is not HostWord.RELEASE
        frozen = do is HostWord.FREEZE or (frozen and do is not HostWord.THAW)
    return held or frozen


def _of_file_page(s: Scenario, h: HostStep, placed: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """One page that is read from the device: the other process of lock-read must sleep there with the page locked, and
    who comes for a page that was freed reads it where it was read before."""
    if h.arg:
        yield f".arg: {h.do} takes a page, no number"
    if s.memory.backing is not Backing.FILE:
        yield f": {h.do} is about the file behind the memory, and memory.backing is {s.memory.backing}"
    if not h.page:
        yield f": {h.do} needs page"
        return
    try:
        found = select(placed, h.page)
    except ScenarioError as exc:
        yield f".page: {exc.message}"
        return
    if len(found) != 1:
        yield f".page: {h.page!r} names {len(found)} pages, {h.do} takes one"
    owner = h.page.partition("[")[0]
    if owner in s.pages and s.pages[owner].start is not PageStart.DROPPED:
        yield f".page: a page that starts as {s.pages[owner].start} is not read from the device; use start = dropped"
