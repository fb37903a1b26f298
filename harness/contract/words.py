# SPDX-License-Identifier: GPL-2.0-or-later
"""The words that plan, agent, guest, model and judge share, each an enumeration.

Who decides by one of them uses ``match`` with ``assert_never`` at its end, so that mypy names every place that a new
word concerns.  In JSON a word is its value; what the probe guest reads as a number carries the number beside it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class GuestKind(StrEnum):
    PROBE = "probe"
    LINUX = "linux"
    HOST_PROGRAM = "host-program"  # no guest of QEMU: a program on the host that is its own VMM (reproducers/)


class Backing(StrEnum):
    """What QEMU backs guest RAM with."""

    ANON = "anon"
    MEMFD = "memfd"
    FILE = "file"

    @property
    def memory(self) -> str:
        """What the kernel under test sees it as: "anon", "shmem" or "file"."""
        match self:
            case Backing.ANON:
                return "anon"
            case Backing.MEMFD:
                return "shmem"
            case Backing.FILE:
                return "file"


class PageStart(StrEnum):
    """The state of a page on the host when the guest first touches it (proved page by page before)."""

    UNTOUCHED = "untouched"  # never allocated on the host
    POPULATED = "populated"  # resident and writable in QEMU's page table, never in the guest's (no SPTE)
    SWAPCACHE = "swapcache"  # unmapped by reclaim, uptodate in the swap cache
    SWAPPED = "swapped"  # only on the swap device ("FREED")
    DROPPED = "dropped"  # file backing: not in the page cache
    ZERO_SWAPPED = "zero-swapped"  # as SWAPPED, but the page holds only zero bytes


class SwapKind(StrEnum):
    NONE = "none"
    GATED = "gated"  # nbd, served by the agent: reads end when the plan says so
    USERFAULT = "userfaultfd"  # no device: missing pages are put there by the agent when the plan says so
    DELAY = "dm-delay"  # dm-delay over a virtio disk: reads delayed, writes not
    ZRAM = "zram"


class _Numbered(StrEnum):
    """A word of a plan, and the number that stands for it in the items file."""

    number: int

    def __new__(cls, word: str, number: int) -> Self:
        member = str.__new__(cls, word)
        member._value_ = word
        member.number = number
        return member


class Access(_Numbered):
    """What a touch does.  ``number``: the item's byte ``access`` (harness/contract/probe_abi.py)."""

    READ = "read", 0
    WRITE = "write", 1


class By(_Numbered):
    """What makes the access of a touch.  ``number``: the item's byte ``by`` (harness/contract/probe_abi.py).

    All but ``instruction`` are made by the processor when it delivers an event to the vCPU: a write is the push of its
    frame, with the page as the event's stack; a read is that of its gate, with the page as the IDT.  ``token``: the
    event is the one that the vCPU's touch before it is told by, or an exception of its own if that is told none.
    """

    INSTRUCTION = "instruction", 0
    INTERRUPT = "interrupt", 1  # one that the vCPU sends itself, taken at the touch's CPL
    EXCEPTION = "exception", 2  # a #PF that has nothing to do with the host
    TOKEN = "token", 3
    NMI = "nmi", 4  # one that the vCPU sends itself at CPL 0


class Op(_Numbered):
    """One step of the guest's program.  Parameters: see plan.Item.

    ``number``: what the probe guest knows it by (layout.h: OP_*).  A number once given is never given again.
    """

    TOUCH = "touch", 0
    WRMSR = "wrmsr", 1
    LAPIC = "lapic", 2  # value 0/1: clear or set SPIV bit 8 (software enable); 2/3: bit 11 of IA32_APIC_BASE
    PAGING = "paging", 3  # value 0: CR0.PG=0 for pause_us, and back; 1: only off and on again; 2: CR0.WP with it
    TIMER = "timer", 4  # value: period in microseconds of the LAPIC timer, 0 stops it
    CLEAR_TOKEN = "clear-token", 5  # exchange the token word of the shared area with 0, after pause_us
    PAUSE = "pause", 6  # do nothing for pause_us, interrupts as given
    WAIT = "wait", 7  # until all earlier touches of this vCPU have ended
    HOST = "host", 8  # the guest stops here; the agent performs host_actions[value] and hands back
    RESET = "reset", 9  # the guest resets the machine (a triple fault); the item has ended before
    PAGE_FAULT = "page-fault", 10  # the guest makes a #PF that has nothing to do with the host, and looks at the flags
    EJECT = "eject", 12  # value: another vCPU, which the hotplug controller of a PC takes out
    INIT = "init", 11  # value: another vCPU, which is given an INIT and a SIPI; its program goes on behind what it did
    AFTER = "after", 13  # value: index of an item of another vCPU: wait, with IF=1, until that vCPU is past it


class HostWord(StrEnum):
    """What the agent does on the host.  "arg" is plan.HostAction's."""

    FREEZE = "freeze"  # the device holds every read
    THAW = "thaw"  # the device ends reads as before (dm-delay: and releases at once what it holds)
    RELEASE = "release"  # what a gated device waits for with release = "step"
    DELAY = "delay"  # reads are delayed by arg milliseconds from now on
    STOP = "stop"  # QMP stop: the vCPU threads leave KVM_RUN
    CONT = "cont"  # QMP cont
    SLEEP = "sleep"  # the agent does nothing for arg milliseconds
    RESET = "reset"  # QMP system_reset
    NMI = "nmi"  # QMP inject-nmi: one to each vCPU
    PLUG = "plug"  # vCPU arg, which was ejected, is plugged in again: QMP device_add
    SAVEVM = "savevm"  # a snapshot of the stopped machine, RAM included, into a disk of its own
    LOADVM = "loadvm"  # the stopped machine is reset, and then given what the snapshot has
    WAIT_NP = "wait-np"  # until arg async page faults are outstanding on the host, by the trace
    WAIT_DONE = "wait-done"  # until the worker of each async page fault so far has completed, by the trace
    WAIT_SETTLED = "wait-settled"  # until the worker of each outstanding async page fault sleeps on its page
    WAIT_HALTED = "wait-halted"  # until arg vCPU threads sleep in a halt with an async page fault outstanding
    LOCK_READ = "lock-read"  # another process reads the page at guest physical address arg of the RAM file
    RECLAIM = "reclaim"  # the page at guest physical address arg of the RAM file is written back, unmapped and freed
    CHANGE_MM = "change-mm"  # somebody has the VMM's mmap_lock for writing, which who waits for a page has let go of
    SYNC = "sync"  # QEMU reads the state of all vCPUs and writes it back, arg times (QMP, info registers)


class Release(StrEnum):
    """What the reads of a plan wait for.

    But for ``step``, ``after`` and ``open``, a read ends only when its fault is settled: the vCPU thread sleeps on it,
    or KVM has announced it (kvm_async_pf_not_present) and its worker sleeps on it.  Until then somebody may still look
    at the page, and would find it read or not by luck.  When all vCPU threads sleep on reads that are held, and
    so do the workers of all others that are, nothing else can come, and those reads end whatever the word says (but for
    ``after``).
    """

    NP = "np"  # count settled faults wait; default: one, so each read ends as soon as its fault is settled
    REPEATED = "repeated"  # count kvm_async_pf_repeated_fault were seen
    ASLEEP = "asleep"  # count vCPU threads sleep on reads that are held
    HALTED = "halted"  # count vCPU threads sleep in a halt with a page outstanding
    STEP = "step"  # the host word "release" was said
    AFTER = "after"  # swap.delay_ms, where time is the subject
    OPEN = "open"  # nothing: reads are answered as they come


class ReadOrder(StrEnum):
    """In which order reads are answered that may end at the same moment.

    Reads that came with the one that a fault waits for (read-ahead) end before it by default: then they are there when
    the fault goes on, and what it finds is no matter of luck.
    """

    TARGET_LAST = "target-last"
    GIVEN = "given"  # as the device got them
    REVERSE = "reverse"  # the newest first


class ReadEnd(StrEnum):
    """Why a read was let go."""

    ANNOUNCED = "announced"  # KVM announced the fault, and the worker sleeps on it
    ASLEEP = "asleep"  # the vCPU thread sleeps on it
    AFTER = "after"  # its time was over
    OPEN = "open"  # the gate was open
    NOT_PLANNED = "not-planned"  # it holds no page of the plan
    SAVED = "saved"  # a snapshot is taken, for which QEMU reads the page itself
    LATE = "late"  # nothing that it waits for came: the run proves nothing


class EndStatus(StrEnum):
    """How the agent's work on a plan ended (end.json)."""

    DONE = "done"  # the guest's program came to its end
    GUEST_TIMEOUT = "guest-timeout"  # it did not, within its deadline
    GUEST_PANIC = "guest-panic"  # the probe guest met an exception that it cannot explain
    QEMU_DIED = "qemu-died"
    PRECONDITION = "precondition"  # a planned state could not be reached: the program was never started
    UNSUPPORTED = "unsupported"  # this host cannot do it
    ERROR = "error"  # our or the machine's fault


class Thread(StrEnum):
    """Whose context something happens in on the host."""

    V = "V"  # the vCPU's KVM_RUN thread
    W = "W"  # the kworker in async_pf_execute
    OTHER = "OTHER"  # any other thread of the host
