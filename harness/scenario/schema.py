# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person writes: a scenario file, as frozen dataclasses.  docs/writing-scenarios.md is its prose.

A scenario says what is set up and what is done.  It names no expected number: the model derives them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from harness.contract.plan import L2, Access, Apf, Backing, By, GuestKind, HostWord, Memory, PageStart, Swap

__all__ = [
    "L2",
    "Apf",
    "Backing",
    "GuestSpec",
    "HostStep",
    "Memory",
    "PageSet",
    "Scenario",
    "Step",
    "Swap",
    "TimedStep",
]


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """[guest]: which guest, and how its virtual machine is made."""

    kind: GuestKind = GuestKind.PROBE
    machine: str = "microvm"
    vcpus: int = 1
    cores: int = 0
    memory_mib: int = 64
    cpu: str = "host"
    irqchip: str = "on"
    cpu_pm: bool = False
    realtime: bool = False
    idle: str = "hlt"
    cmdline: str = ""
    workload: str = ""
    workload_pages: int = 0


@dataclass(frozen=True, slots=True)
class PageSet:
    """[pages.NAME]: ``groups`` groups of ``run`` adjacent pages, group starts ``stride`` pages apart.

    The pages are named NAME[0], NAME[1], ...: group 0 first, in address order.
    ``offset`` is the pool page of NAME[0]; -1 places the set after the earlier ones, on a fresh 2 MiB range.
    """

    groups: int
    run: int = 1
    stride: int = 64
    offset: int = -1
    start: PageStart = PageStart.SWAPPED


@dataclass(frozen=True, slots=True)
class HostStep:
    """What the agent does on the host: harness/contract/words.py says what each word does."""

    do: HostWord
    arg: int = 0
    page: str = ""  # for "lock-read" and "reclaim": NAME[i]


@dataclass(frozen=True, slots=True)
class TimedStep:
    """[[timed]]: host steps at a time after the guest was let go."""

    at_ms: int
    host: tuple[HostStep, ...]


_ACTION = {"action": True}
LAPIC_WORDS = ("off", "on", "base-off", "base-on")
PAGING_WORDS = ("off", "flip", "flip-wp")
"""Of the step ``lapic``, each at the place of its value (Op.LAPIC)."""


@dataclass(frozen=True, slots=True)
class Step:
    """[[steps]]: exactly one of ACTIONS.

    ``touch`` is a page set ("f": all its pages in order), one page ("f[3]"), a slice ("f[0:4]", "f[::2]") or a
    list of these; the other keys apply to each of its touches.
    """

    touch: str | tuple[str, ...] = field(default="", metadata=_ACTION)
    wrmsr: str = field(default="", metadata=_ACTION)  # "EN", "INT", "ACK" (of MSR_KVM_ASYNC_PF_*) or a number
    value: int | str = 0  # for wrmsr; "own|9" is the vCPU's shared area with these flags
    lapic: str = field(default="", metadata=_ACTION)  # one of LAPIC_WORDS
    paging: str = field(default="", metadata=_ACTION)  # one of PAGING_WORDS: off for pause_us; off and on again
    timer_us: int = field(default=-1, metadata=_ACTION)
    clear_token: bool = field(default=False, metadata=_ACTION)
    reset: bool = field(default=False, metadata=_ACTION)
    init: int = field(default=-1, metadata=_ACTION)  # INIT and SIPI to this vCPU, from another
    eject: int = field(default=-1, metadata=_ACTION)  # this vCPU, by another: q35 only
    page_fault: bool = field(default=False, metadata=_ACTION)  # a #PF of the guest's own, on purpose
    pause: bool = field(default=False, metadata=_ACTION)
    wait_all: bool = field(default=False, metadata=_ACTION)
    after: str = field(default="", metadata=_ACTION)  # the name of an earlier step, of another vCPU
    host: tuple[HostStep, ...] = field(default=(), metadata=_ACTION)
    name: str = ""  # what ``after`` knows it by
    vcpu: int = 0
    access: Access = Access.READ
    cpl: int = 3
    interrupts: bool = True  # of a wrmsr, a lapic: False: none is taken between the step before it and the write
    shadow: bool = False
    no_paging: bool = False
    gif: bool = True  # of a touch: False: GIF keeps the interrupts off, and not RFLAGS.IF, which is 1
    tpr: bool = False  # of pause and host: True: the LAPIC's task priority does, and not RFLAGS.IF
    in_service: bool = False  # of pause and host: an interrupt is in service; without interrupts it keeps them off
    level: int = 1  # of a touch: 2: made by an L2, which cpl and interrupts are of then
    by: By = By.INSTRUCTION  # of a touch: what makes the access
    then: str = "go-on"  # or "wait"
    pause_us: int = 0

    @property
    def actions(self) -> tuple[str, ...]:
        """The keys that say what this step does; a right step has exactly one."""
        return tuple(f.name for f in fields(self) if f.metadata == _ACTION and getattr(self, f.name) != f.default)


ACTIONS = tuple(f.name for f in fields(Step) if f.metadata == _ACTION)
"""The keys that say what a step does."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario file, complete.  ``kernels``: variants it applies to, empty for all."""

    id: str
    title: str
    catalogue: str = ""
    why: str = ""
    tags: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    guest: GuestSpec = field(default_factory=GuestSpec)
    apf: Apf = field(default_factory=Apf)
    l2: L2 = field(default_factory=L2)
    memory: Memory = field(default_factory=Memory)
    swap: Swap = field(default_factory=Swap)
    pages: dict[str, PageSet] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    timed: tuple[TimedStep, ...] = ()
    kernel_params: dict[str, str] = field(default_factory=dict)
    kernel_params_at_go: dict[str, str] = field(default_factory=dict)
    deadline_s: int = 60
    repeats: int = 1  # how often a run repeats it by default (racy scenarios)
