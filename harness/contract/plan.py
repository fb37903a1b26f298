# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan: a scenario with everything resolved, as plain dataclasses and JSON.

The agent performs it on the host, the model predicts from it, the judge holds the evidence against it.
Standard library only, because the agent is shipped with it.  Units are in the field names; addresses are
guest physical addresses (GPA) in bytes; pages are 4096 bytes.  docs/formats/plan.md is the prose of this file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from harness.contract.probe_abi import PAGE_SIZE, POOL_GPA, SHARED_GPA
from harness.contract.structure import from_json, to_json
from harness.contract.words import Access, Backing, By, GuestKind, HostWord, Op, PageStart, ReadOrder, SwapKind

__all__ = [
    "L2", "PAGE_SIZE", "PLAN_VERSION", "POOL_GPA", "RAM_FILE_DATA_AFTER", "RAM_FILE_DATA_BEFORE",
    "SHARED_GPA", "Access", "Apf", "Backing", "By", "Guest", "GuestKind",
    "HostAction", "HostWord", "Item", "Memory", "Op", "Page", "PageStart", "Plan", "ReadOrder", "Swap", "SwapKind",
    "TimedAction", "area_page", "changed", "descriptor_tables", "from_json", "further_areas", "initialized",
    "replace_index", "resets", "runs_l2", "says", "starts_anew", "to_json", "vcpu_ids",
]  # fmt: skip

PLAN_VERSION = 1
RAM_FILE_DATA_BEFORE, RAM_FILE_DATA_AFTER = 16, 48
"""Pages of a RAM file before, and from, each planned page that is to hold data that are really written: what the
read-around of a miss (mm/filemap.c:do_sync_mmap_readahead, 32 pages) and one window more can reach."""


@dataclass(frozen=True, slots=True)
class Item:
    """One step of the program of one vCPU; items of a vCPU start in order of ``index``.

    ``wait``: the next item of this vCPU starts only when this one has ended (for a touch: when the access has
    retired).  Without it, the next item starts as soon as this one ended or got a token.
    ``pause_us``: the vCPU busy-waits so long, with IF=1, before the item starts.
    """

    index: int
    op: Op
    vcpu: int = 0
    gpa: int = 0  # TOUCH: address of the access (8 bytes, page aligned)
    access: Access = Access.READ
    cpl: int = 3
    interrupts: bool = True  # RFLAGS.IF during the access
    shadow: bool = False  # the access is the instruction after STI
    no_paging: bool = False  # TOUCH with CR0.PG=0 (32-bit protected mode, CPL 0)
    level: int = 1  # TOUCH: 2: made by an L2 that this vCPU runs by VMRUN; cpl and interrupts are L2's then
    by: By = By.INSTRUCTION  # TOUCH: what makes the access
    gif: bool = True  # TOUCH: False, with interrupts False: AMD's GIF is 0 during the access, and RFLAGS.IF is 1
    tpr: bool = False  # PAUSE, HOST: True, with interrupts False: the LAPIC's task priority is highest, RFLAGS.IF is 1
    in_service: bool = False  # PAUSE, HOST: in the handler of an interrupt: a low one, or one above all, RFLAGS.IF is 1
    wait: bool = False
    pause_us: int = 0
    msr: int = 0
    value: int = 0
    page: str = ""  # for people: "f[3]"


@dataclass(frozen=True, slots=True)
class HostAction:
    """What the agent does on the host when the guest reaches a HOST item, or at a time; ``arg``: see the word."""

    do: HostWord
    arg: int = 0


@dataclass(frozen=True, slots=True)
class TimedAction:
    """HostActions performed ``at_ms`` after the guest's program was started, whatever the guest does."""

    at_ms: int
    actions: tuple[HostAction, ...]


@dataclass(frozen=True, slots=True)
class Apf:
    """How the probe guest programs async page faults on each vCPU before its program starts."""

    en_flags: int = 0b1001  # low bits of MSR_KVM_ASYNC_PF_EN; 0: never written
    vector: int = 0xF3  # MSR_KVM_ASYNC_PF_INT; 0: never written
    en_gpa: int = -1  # -1: the vCPU's own shared area; else this raw address (S10)
    lapic_enabled: bool = True  # False: EN is written before SPIV bit 8 is set (S11)
    zero_token: bool = True  # the 0xf3 handler clears the token
    ack: bool = True  # the 0xf3 handler writes MSR_KVM_ASYNC_PF_ACK
    ack_first: bool = False  # ... before clearing the token (S71)


@dataclass(frozen=True, slots=True)
class L2:
    """How the probe guest, as an L1 of AMD's kind, runs the L2 that items of level 2 are made by."""

    npt: bool = True  # nested paging, with tables of its own; else L2 shares L1's CR3 and the host shadows it
    intercept_pf: bool = False  # exceptions bit 14
    intercept_intr: bool = True  # a physical interrupt is an exit; else it goes to L2
    intercept_vintr: bool = False
    intr_masking: bool = True  # V_INTR_MASKING: RFLAGS.IF at VMRUN masks physical interrupts, not L2's
    l1_interrupts: bool = True  # RFLAGS.IF at VMRUN
    inject: bool = False  # EVENTINJ has an external interrupt at the first VMRUN of each item
    virq: bool = False  # V_IRQ is set at the first VMRUN of each item
    moved: bool = False  # L2 finds the pages that it touches elsewhere than L1 does (probe_abi.MOVED_GPA)


@dataclass(frozen=True, slots=True)
class Guest:
    kind: GuestKind = GuestKind.PROBE
    machine: str = "microvm"  # or "q35"
    vcpus: int = 1
    cores: int = 0  # of each socket; 0: as QEMU does it, so that the APIC ids have no gaps
    memory_mib: int = 64
    cpu: str = "host"
    irqchip: str = "on"  # QEMU kernel-irqchip=on|split|off
    cpu_pm: bool = False
    realtime: bool = False  # the thread of each vCPU is SCHED_FIFO: a worker that it queues begins when it sleeps
    apf: Apf = field(default_factory=Apf)
    l2: L2 = field(default_factory=L2)
    idle: str = "hlt"  # what a vCPU does when it has nothing to run: "hlt" or "spin"
    cmdline: str = ""  # Linux guests: appended to the kernel command line; host programs: their arguments
    workload: str = ""  # Linux guests: what /init runs, see guest-images/linux; host programs: which one
    workload_pages: int = 0  # Linux guests: how many anonymous pages the workload fills and touches


@dataclass(frozen=True, slots=True)
class Memory:
    backing: Backing = Backing.ANON
    share: bool = False
    random_advice: bool = False  # MADV_RANDOM on the RAM mapping
    sequential_advice: bool = False  # MADV_SEQUENTIAL


@dataclass(frozen=True, slots=True)
class Swap:
    """The device under the pages: for FILE backing the same device carries the file system.

    ``release``, ``order``, ``error``: of a gated device (harness/contract/gate.py); ``delay_ms``: of dm-delay, and of a
    gated device with the release ``after``.
    """

    kind: SwapKind = SwapKind.GATED
    delay_ms: int = 200  # read delay
    rotational: bool = False
    page_cluster: int = 3
    size_mib: int = 256
    release: str = "np"  # gate.parse_rule
    order: ReadOrder = ReadOrder.TARGET_LAST
    error: tuple[str, ...] = ()  # names of pages whose reads end with EIO


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the pool and the state it must be in when the guest's program is started."""

    gpa: int
    start: PageStart
    name: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything resolved, no decision left.  ``nonce`` (64 bits) ties capture, guest log and verdict together."""

    scenario: str
    title: str
    nonce: int
    guest: Guest
    memory: Memory
    swap: Swap
    pages: tuple[Page, ...]
    items: tuple[Item, ...]
    host_actions: tuple[tuple[HostAction, ...], ...] = ()
    timed: tuple[TimedAction, ...] = ()
    kernel_params: tuple[tuple[str, str], ...] = ()  # written to /sys/module/<m>/parameters/<p> as ("m.p", "v")
    kernel_params_at_go: tuple[tuple[str, str], ...] = ()  # the same, while the guest waits to be let go
    deadline_s: int = 60  # for the guest's program, from its start
    settle_ms: int = 300  # after the guest's end the trace is stopped at the latest
    version: int = PLAN_VERSION


def says(plan: Plan, word: HostWord) -> bool:
    """Whether the agent does this while the program runs."""
    lists = (*plan.host_actions, *(timed.actions for timed in plan.timed))
    return any(action.do is word for actions in lists for action in actions)


def resets(plan: Plan) -> bool:
    """Whether the machine is reset while the program runs, by the agent or by the guest.  One that is reset while it
    stands, and loaded then, goes on where the snapshot was taken."""
    return resets_at_a_time(plan) or bool(resetting_items(plan))


def resets_at_a_time(plan: Plan) -> bool:
    """Whether the agent resets the machine whatever the guest does."""
    return any(_resets(timed.actions) for timed in plan.timed)


def resetting_items(plan: Plan) -> frozenset[int]:
    """The items in which the guest resets the machine, or has the agent do so."""
    told = {n for n, actions in enumerate(plan.host_actions) if _resets(actions)}
    return frozenset(
        item.index for item in plan.items if item.op is Op.RESET or (item.op is Op.HOST and item.value in told)
    )


def _resets(actions: Sequence[HostAction]) -> bool:
    words = [action.do for action in actions]
    return any(word is HostWord.RESET and not loads_behind(words, at) for at, word in enumerate(words))


def loads_behind(words: Sequence[Enum], at: int) -> bool:
    """Whether one list of the agent's actions loads a snapshot behind this one: the machine stands until then."""
    return HostWord.LOADVM in words[at + 1 :]


def initialized(plan: Plan) -> frozenset[int]:
    """vCPUs that another vCPU gives an INIT and a SIPI while the program runs."""
    return frozenset(item.value for item in plan.items if item.op is Op.INIT)


def starts_anew(plan: Plan) -> bool:
    """Whether a vCPU loses its state while the program runs, by whatever way."""
    return resets(plan) or bool(initialized(plan)) or says(plan, HostWord.LOADVM) or says(plan, HostWord.PLUG)


def vcpu_ids(guest: Guest) -> tuple[int, ...]:
    """The APIC id of each vCPU, in the order of their numbers, which is its vcpu_id in KVM (QEMU's
    include/hw/i386/topology.h:x86_apicid_from_cpu_idx and target/i386/kvm/kvm.c:kvm_arch_vcpu_id, 7.2): the ids of each
    socket begin at a multiple of the power of two that has room for its cores."""
    cores = guest.cores or guest.vcpus
    width = (cores - 1).bit_length()
    return tuple(number // cores << width | number % cores for number in range(guest.vcpus))


def online_cpus(guest: Guest) -> int:
    """How many CPUs a Linux guest brings up (Documentation/admin-guide/kernel-parameters.txt)."""
    online = guest.vcpus
    for word in guest.cmdline.split():
        name, _, number = word.partition("=")
        if word == "nosmp":
            online = 1
        elif name in ("maxcpus", "nr_cpus") and number.isdecimal():
            online = min(online, max(1, int(number)))
    return online


def runs_l2(plan: Plan) -> bool:
    """Whether a guest of the plan is an L1 that runs an L2."""
    in_linux = plan.guest.kind is GuestKind.LINUX and plan.guest.workload == "l2"
    return in_linux or plan.guest.kind is GuestKind.HOST_PROGRAM or any(item.level == 2 for item in plan.items)


def descriptor_tables(plan: Plan) -> frozenset[int]:
    """The pages that a vCPU uses as its IDT: guest physical addresses."""
    tables = (i for i in plan.items if i.by is not By.INSTRUCTION and i.access is Access.READ)
    return frozenset(item.gpa for item in tables)


def area_page(plan: Plan) -> int:
    """The pool page in which the shared area lies that the set-up names; 0: it lies elsewhere, or EN is not written."""
    apf = plan.guest.apf
    inside = POOL_GPA <= apf.en_gpa < plan.guest.memory_mib << 20
    return apf.en_gpa - apf.en_gpa % PAGE_SIZE if inside and apf.en_flags else 0


EN_DELIVERS = 0b1001
"""Bits of MSR_KVM_ASYNC_PF_EN without which nothing is told, and no area looked up (kvm_pv_async_pf_enabled)."""
EN_RESERVED = 0b110000
_EN, _AREA = 0x4B564D02, ~0x3F  # MSR_KVM_ASYNC_PF_EN, arch/x86/include/uapi/asm/kvm_para.h; its address


def further_areas(plan: Plan) -> tuple[int, ...]:
    """Shared areas that writes of EN name besides the vCPUs' own, where there is memory: guest physical addresses."""
    return tuple(sorted(gpa for gpa in _further_areas(plan) if gpa < plan.guest.memory_mib << 20))


def names_a_hole(plan: Plan) -> bool:
    """Whether a write of EN names an address behind the guest's memory."""
    return any(gpa >= plan.guest.memory_mib << 20 for gpa in _further_areas(plan))


def _further_areas(plan: Plan) -> set[int]:
    apf = plan.guest.apf
    named = {apf.en_gpa} if apf.en_gpa >= 0 and apf.en_flags & EN_DELIVERS == EN_DELIVERS else set()
    named |= {
        item.value & _AREA
        for item in plan.items
        if item.op is Op.WRMSR and item.msr == _EN and item.value & (EN_DELIVERS | EN_RESERVED) == EN_DELIVERS
    }
    own = {SHARED_GPA + PAGE_SIZE * vcpu for vcpu in range(plan.guest.vcpus)}
    return named - own


def changed(item: Item, **values: Any) -> Item:
    """The item with some fields changed."""
    return dataclasses.replace(item, **values)


def replace_index(item: Item, index: int) -> Item:
    """The item at its place in the program."""
    return dataclasses.replace(item, index=index)
