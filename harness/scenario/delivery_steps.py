# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps with an event of the vCPU's own: a touch whose access the processor makes when it delivers one, the page being
its stack or the IDT; and what is done while an interrupt is in service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.contract.plan import Access, By, HostWord, PageStart, SwapKind
from harness.contract.probe_abi import VEC_DELIVERED, VEC_HELD_LOW
from harness.errors import ScenarioError
from harness.scenario.pages import select
from harness.scenario.schema import Scenario, Step

_NO_DATA = (PageStart.UNTOUCHED, PageStart.ZERO_SWAPPED)


def check_by(s: Scenario, number: int, placed: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Problems of one step's ``by``, as ".key: text"."""
    t = s.steps[number]
    if t.by is By.INSTRUCTION or not t.touch:
        return
    if t.shadow or not t.gif or t.no_paging or t.level == 2:
        yield ".by: a delivery is one of 64-bit code of level 1, in no interrupt shadow, with GIF = 1"
    if t.by is By.INTERRUPT:
        yield from _interrupt(s, t)
    elif t.by is By.NMI:
        yield from _nmi(s, t)
    elif t.by is By.TOKEN:
        yield from _token(s, number, placed)
    if t.access is Access.READ:
        yield from _table(s, t, placed)
    else:
        yield from _stack(s, t, placed)


def check_in_service(s: Scenario, t: Step) -> Iterator[str]:
    """Problems of one step's ``in_service``, as ".key: text"."""
    if not t.in_service:
        return
    yield from _sent_by_itself(s, t, ".in_service")
    if t.tpr:
        yield ".tpr: an interrupt in service keeps interrupts off, or none does"
    if t.interrupts and s.apf.vector >> 4 <= VEC_HELD_LOW >> 4:
        yield f".interrupts: {VEC_HELD_LOW:#x}, in service, keeps off what is not above its class: set apf.vector"


def check_told_above(s: Scenario, t: Step, vector: int) -> Iterator[str]:
    """Problems of a write of INT whose vCPU is told while an interrupt is in service that this one cannot interrupt."""
    behind = s.steps[next(i for i, o in enumerate(s.steps) if o is t) :]
    held = any(o.in_service and o.interrupts and o.vcpu == t.vcpu for o in behind)
    if held and vector >> 4 == VEC_HELD_LOW >> 4:
        yield f".value: {VEC_HELD_LOW:#x}, in service later, keeps off {vector:#x}: name one of a class above"


def _sent_by_itself(s: Scenario, t: Step, key: str) -> Iterator[str]:
    if s.guest.irqchip == "off":
        yield f"{key}: the vCPU sends itself the interrupt, which a LAPIC in QEMU makes an exit to userspace"
    if any(other.lapic and other.vcpu == t.vcpu for other in s.steps):
        yield f"{key}: the vCPU sends itself the interrupt, for which its LAPIC must be on throughout"


def _interrupt(s: Scenario, t: Step) -> Iterator[str]:
    if not t.interrupts:
        yield ".interrupts: the interrupt would not be taken"
    yield from _sent_by_itself(s, t, ".by")
    if s.apf.vector == VEC_DELIVERED or any(o.wrmsr and o.value == VEC_DELIVERED for o in s.steps):
        yield f".by: {VEC_DELIVERED:#x} is the vector of the interrupt that the vCPU sends itself"


def _nmi(s: Scenario, t: Step) -> Iterator[str]:
    yield from _sent_by_itself(s, t, ".by")
    if t.cpl:
        yield ".cpl: the vCPU sends itself the NMI at CPL 0, and takes it there: set cpl = 0"
    actions = (*(a for o in s.steps for a in o.host), *(a for entry in s.timed for a in entry.host))
    if any(a.do is HostWord.NMI for a in actions):
        yield ".by: the NMI of a host word could be taken for the vCPU's own"


def _token(s: Scenario, number: int, placed: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    t = s.steps[number]
    before = [other for other in s.steps[:number] if other.vcpu == t.vcpu][-1:]
    if t.access is Access.READ:
        yield ".access: the page is the stack of the token's #PF: set access = write"
    if len(_pages(t, placed)) > 1:
        yield ".touch: a token is delivered on one page"
    if not (before and before[0].touch and before[0].by is By.INSTRUCTION and before[0].then == "go-on"):
        told = "a touch by an instruction, which the program does not wait for"
        yield f".by: the token is that of the vCPU's step before, {told}"
    elif before[0].no_paging or before[0].level == 2:
        yield ".by: a touch without paging, or of an L2, has no token of 64-bit code"


def _table(s: Scenario, t: Step, placed: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """The agent writes the gates; nothing else may lie in the page."""
    starts = {s.pages[name.partition("[")[0]].start for name, _ in _pages(t, placed)}
    if s.swap.kind is not SwapKind.USERFAULT and starts & set(_NO_DATA):
        yield f".touch: an IDT holds gates, and no page that starts as {' or '.join(_NO_DATA)} does"
    mine = {gpa for _, gpa in _pages(t, placed)}
    stacks = {gpa for o in s.steps if o.by is not By.INSTRUCTION and o.access is Access.WRITE
              for _, gpa in _pages(o, placed)}  # fmt: skip
    if mine & stacks:
        yield ".touch: what is a stack elsewhere holds no IDT"


def _stack(s: Scenario, t: Step, placed: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    mine = {gpa for _, gpa in _pages(t, placed)}
    for other in s.steps:
        if other.by is not By.INSTRUCTION and other.vcpu != t.vcpu and mine & {gpa for _, gpa in _pages(other, placed)}:
            yield f".touch: vCPU {other.vcpu} uses the page for an event of its own, perhaps at the same time"
            return


def _pages(t: Step, placed: Mapping[str, tuple[int, ...]]) -> tuple[tuple[str, int], ...]:
    try:
        return tuple(select(placed, t.touch)) if t.touch else ()
    except ScenarioError:
        return ()  # told with the step
