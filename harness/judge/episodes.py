# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU thread's trace -> fault episodes: one guest access that left the guest, and how the host dealt with it.

An episode starts at kvm_page_fault and ends with the next kvm_entry of the same thread (behaviour.md B.15).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from harness.evidence.resets import accepts_init
from harness.model.events import MSR_ASYNC_PF_EN, Event, Kind
from harness.model.outcomes import Outcome

_PAGE = -4096
VM_FAULT_MAJOR = 0x4
VM_FAULT_RETRY = 0x400
"""Bits of enum vm_fault_reason, include/linux/mm_types.h (5.10, 6.1 and 6.12 alike)."""


@dataclass(slots=True)
class Episode:
    """What happened on one vCPU between a kvm_page_fault and the next kvm_entry."""

    vcpu: int
    start: Event
    events: list[Event] = field(default_factory=list)
    end: Event | None = None  # the kvm_entry; None when the trace ends first
    delivering: bool = False  # the guest was being given an event, which needed the page
    guest_mode: bool = False  # its L2 made the access

    @property
    def gpa(self) -> int:
        return self.start.gpa

    @property
    def write(self) -> bool:
        """PFERR_WRITE_MASK of the error code (arch/x86/include/asm/kvm_host.h)."""
        return bool(self.start.value & 2)

    def of(self, kind: Kind) -> list[Event]:
        return [e for e in self.events if e.kind is kind]

    def first(self, kind: Kind) -> Event | None:
        return next((e for e in self.events if e.kind is kind), None)

    @property
    def token(self) -> int:
        """The token of its kvm_async_pf_not_present, 0 without one."""
        np = self.first(Kind.NP)
        return np.token if np else 0

    def own_reads(self, dev: int) -> int:
        """Read bios that the vCPU thread itself queued on the device before it gave up or had the page."""
        return sum(1 for e in self.events if e.kind is Kind.BIO and e.flag and e.dev == dev)

    def reads_of_the_page(self, dev: int) -> bool:
        """Whether one of its own reads may be of the page itself.  Read-ahead of a file (REQ_RAHEAD) that has it is of
        a miss, which is VM_FAULT_MAJOR; else it is that of the page that marks the next window."""
        own = (e for e in self.events if e.kind is Kind.BIO and e.flag and e.dev == dev)
        return any(" RA " not in e.text for e in own)

    @property
    def blocked_ns(self) -> int:
        """How long the thread was off the CPU and not runnable."""
        total, since = 0, None
        for e in self.events:
            if e.kind is Kind.OUT and chr(e.value) != "R":
                since = e.t_ns
            elif e.kind is Kind.IN and since is not None:
                total += e.t_ns - since
                since = None
        return total


_HEEDED = frozenset({Kind.L2_ENTRY, Kind.L2_EXIT, Kind.CLEAR, Kind.PF, Kind.WRMSR})
_CALLS = frozenset({Kind.MM_FAULT, Kind.MM_FAULT_RET})


def split(events: Iterable[Event], ram_hva: int = 0) -> Iterator[Episode]:
    """The episodes of all vCPUs, in the order in which they start.

    KVM reads and writes the shared area before the same entry (x86.c:apf_pageready_slot_free, apf_put_user_ready,
    apf_put_user_notpresent), and waits for its page where that has been reclaimed: this is no part of the access.

    :param ram_hva: where QEMU has the RAM (Evidence.ram_hva); 0: it is not known which calls are for an area.
    """
    open_: dict[int, Episode] = {}
    delivering: dict[int, bool] = {}
    found: list[Episode] = []
    inside: set[int] = set()  # vCPUs whose L2 runs
    areas: set[int] = set()  # addresses of QEMU, of pages
    in_area: set[int] = set()  # vCPUs whose thread faults on such a page, which is not that of the access
    in_vmm: set[int] = set()  # vCPUs whose thread has left KVM_RUN: what it faults on is not that of the access
    entry, exit_ = Kind.ENTRY, Kind.EXIT  # a member of an enum takes its time to look up
    for event in events:
        kind, vcpu = event.kind, event.vcpu
        if vcpu < 0:
            continue
        current = open_.get(vcpu)
        if kind is entry:
            if current is not None:
                current.end = event
                del open_[vcpu]
            continue
        if kind is exit_:
            delivering[vcpu] = event.flag
        elif kind in _HEEDED:
            if kind is Kind.L2_ENTRY:
                inside.add(vcpu)
            elif kind is Kind.L2_EXIT or (kind is Kind.CLEAR and not event.flag):
                inside.discard(vcpu)
            elif kind is Kind.PF:
                episode = Episode(vcpu, event, delivering=delivering.get(vcpu, False), guest_mode=vcpu in inside)
                open_[vcpu] = episode
                in_vmm.discard(vcpu)
                found.append(episode)
                continue
            elif kind is Kind.WRMSR and event.value == MSR_ASYNC_PF_EN and ram_hva:
                areas.add(ram_hva + (event.data & _PAGE))
        if current is None:
            continue
        if kind is Kind.USER_EXIT:
            in_vmm.add(vcpu)
        elif kind in _CALLS:
            if vcpu in in_vmm:
                continue
            if kind is Kind.MM_FAULT:
                if event.hva & _PAGE in areas and event.hva & _PAGE != ram_hva + (current.gpa & _PAGE):
                    in_area.add(vcpu)
            elif vcpu in in_area:
                in_area.discard(vcpu)
                continue
        if vcpu not in in_area:
            current.events.append(event)
    yield from found


def _asynchronous(episode: Episode, np: Event) -> Outcome:
    """What the entry behind an NP shows.  A token is queued by kvm_arch_async_page_not_present and seen when it is
    injected; a halt is that it is not.  Where a reset (kvm_vcpu_reset drops what is queued) or the end of the trace
    came before that entry, only a vCPU that has slept in KVM_RUN shows which of the two it was."""
    after = episode.events[episode.events.index(np) :]
    injected = any(e.kind is Kind.INJ and not e.flag for e in after)
    if episode.guest_mode and any(e.kind is Kind.L2_EXIT and e.flag for e in after):
        return Outcome.TOKEN
    if injected:
        return Outcome.TO_L2 if episode.guest_mode else Outcome.TOKEN
    # QEMU may sleep too, once KVM_RUN has returned, and behind an INIT the thread waits for works and for its SIPI.
    in_kvm = takewhile(lambda e: e.kind is not Kind.USER_EXIT and not accepts_init(e), after)
    if any(e.kind is Kind.OUT and chr(e.value) == "S" for e in in_kvm):
        return Outcome.HALT
    if episode.end is None or any(e.kind is Kind.CLEAR and not e.flag for e in after):
        return Outcome.QUEUED
    # Where nobody was told who had to be, L2 runs on at once, or an interrupt takes it out: another page's, too.
    left = episode.guest_mode and not any(e.kind is Kind.RDY and e.token == np.token for e in after)
    return Outcome.LEFT if left else Outcome.HALT


def _slept(events: Iterable[Event], probed: bool) -> bool:
    """Whether the vCPU thread waited for its page.  Inside handle_mm_fault interruptibly too, from 6.2 on: userfaultfd
    looks at FAULT_FLAG_INTERRUPTIBLE (fs/userfaultfd.c:userfaultfd_get_blocking_state).  Elsewhere in KVM_RUN "S" is a
    halt.

    :param events: of the access, up to where KVM tells of pages that are ready, before it enters the guest: there it
        waits for the work of each (virt/kvm/async_pf.c:kvm_flush_and_free_async_pf_work).
    :param probed: calls of handle_mm_fault were recorded.  Outside of them a thread may sleep for the VMM's mmap_lock,
        which whoever changes its mappings holds (mm/gup.c:get_user_pages_unlocked), and for no page.
    """
    in_fault = False
    for event in events:
        if event.kind in (Kind.MM_FAULT, Kind.MM_FAULT_RET):
            in_fault = event.kind is Kind.MM_FAULT
        elif event.kind is Kind.OUT and (
            (in_fault and chr(event.value) in "DS") or (not probed and chr(event.value) == "D")
        ):
            return True
    return False


def outcome(episode: Episode, dev: int, probed: bool) -> Outcome:
    """What became of the access, from the trace alone (the table in behaviour.md B.15).

    :param dev: the device of the pages' own reads, major << 20 | minor.
    :param probed: the probes on handle_mm_fault were active; without them a mapping that needed handle_mm_fault but
        no I/O cannot be told from GUP-fast, and a synchronous device cannot be told from either: both say FAST.
    """
    np = episode.first(Kind.NP)
    if np is not None:
        return _asynchronous(episode, np)
    if episode.first(Kind.REP) is not None:
        return Outcome.REPEATED
    if any(e.kind is Kind.USER_EXIT and e.value == 14 for e in episode.events):
        return Outcome.ERROR
    slept = _slept(takewhile(lambda e: e.kind is not Kind.RDY, episode.events), probed)
    results = [e.value for e in episode.of(Kind.MM_FAULT_RET)]
    if any(r & VM_FAULT_MAJOR for r in results) or (slept and episode.reads_of_the_page(dev)):
        return Outcome.SYNC  # a read of its own that it neither needed nor waited for is the next read-ahead's
    if slept:
        return Outcome.BLOCK
    if probed:
        return Outcome.MINOR if episode.first(Kind.MM_FAULT) is not None else Outcome.FAST
    return Outcome.FAST
