# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a scenario may put the shared area (struct kvm_vcpu_pv_apf_data): into no memory that the guest uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from harness.contract.plan import EN_DELIVERS, EN_RESERVED, PageStart, SwapKind
from harness.contract.probe_abi import PAGE_SIZE, POOL_GPA, SHARED_GPA
from harness.errors import ScenarioError
from harness.model.events import MSR_ASYNC_PF_EN
from harness.scenario.pages import select
from harness.scenario.schema import Scenario

_FLAGS = 63
_NO_DATA = (PageStart.UNTOUCHED, PageStart.ZERO_SWAPPED)


def check_set_up(s: Scenario) -> Iterator[str]:
    """Problems of ``apf.en_gpa``, which may also lie in the pool."""
    gpa = s.apf.en_gpa
    if 0 <= gpa < POOL_GPA and not _own(s, gpa):
        yield f"$.apf.en_gpa: {gpa:#x} is used for something else: {_allowed(s)}, or a pool page from {POOL_GPA:#x} on"
    if s.guest.vcpus > 1 and POOL_GPA <= gpa < s.guest.memory_mib << 20:
        yield f"$.apf.en_gpa: {gpa:#x} would be the area of {s.guest.vcpus} vCPUs; a pool page is for one vCPU"


def check_write(s: Scenario, msr: int, value: int) -> Iterator[str]:
    """Problems of the value of a wrmsr, as ".value: text"."""
    gpa = value & ~_FLAGS
    if msr != MSR_ASYNC_PF_EN or (not gpa and value & (EN_DELIVERS | EN_RESERVED) != EN_DELIVERS):
        return
    if POOL_GPA <= gpa < s.guest.memory_mib << 20:
        yield f".value: {value:#x} puts the shared area into the pool ({gpa:#x}): only apf.en_gpa may"
    elif gpa < POOL_GPA and not _own(s, gpa):
        yield f".value: {value:#x} puts the shared area to {gpa:#x}, which is used for something else: {_allowed(s)}"


def check_apart(s: Scenario, writes: Iterable[tuple[int, int, int]]) -> Iterator[str]:
    """No two vCPUs may have one area: the host would write the words of both into it, and each guest handler clear
    what the other was told.  ``writes``: (step, vCPU, value) of the program's writes of EN."""
    named = [("$.apf", v, s.apf.en_gpa if s.apf.en_gpa >= 0 else own_area(v)) for v in range(s.guest.vcpus)]
    named = named if s.apf.en_flags else []
    named += [(f"$.steps[{i}].value", vcpu, value & ~_FLAGS) for i, vcpu, value in writes if value & _FLAGS]
    owner: dict[int, int] = {}
    for path, vcpu, gpa in named:
        if gpa < s.guest.memory_mib << 20 and owner.setdefault(gpa, vcpu) != vcpu:
            yield f"{path}: {gpa:#x} is given to vCPU {owner[gpa]} at some time: vCPU {vcpu} needs one of its own"


def check_page(s: Scenario, placed: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Problems of a shared area that ``apf.en_gpa`` puts into the pool: what else is in its page."""
    area = s.apf.en_gpa
    gpa = area - area % PAGE_SIZE
    if not (s.apf.en_flags and POOL_GPA <= gpa < s.guest.memory_mib << 20):
        return
    for i, step in enumerate(s.steps):
        try:
            names = [name for name, page in select(placed, step.touch) if page == gpa] if step.touch else []
        except ScenarioError:
            continue  # told with the step
        if names:
            yield f"$.steps[{i}].touch: {names[0]} has the shared area in it (apf.en_gpa), and is to be left alone"
            return
    starts = [s.pages[name].start for name, gpas in placed.items() if gpa in gpas]
    zero = s.swap.kind is not SwapKind.USERFAULT and set(starts) <= set(_NO_DATA)
    if starts and not zero and area != gpa:
        yield f"$.apf.en_gpa: a page that starts as {starts[0]} holds known data in its first 64 bytes: use {gpa:#x}"


def own_area(vcpu: int) -> int:
    """That a vCPU has if nothing else is said."""
    return SHARED_GPA + PAGE_SIZE * vcpu


def _own(s: Scenario, gpa: int) -> bool:
    """In the page of one of the vCPUs' areas (guest-images/probe/memory.c:touch_own_memory)."""
    return SHARED_GPA <= gpa < SHARED_GPA + PAGE_SIZE * s.guest.vcpus


def _allowed(s: Scenario) -> str:
    end = SHARED_GPA + PAGE_SIZE * s.guest.vcpus
    hole = s.guest.memory_mib << 20
    return f"the vCPUs' areas lie from {SHARED_GPA:#x} to {end - 1:#x}, a hole from {hole:#x} on"
