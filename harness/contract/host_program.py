# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that run on the host under test and are their own VMM: reproducers/, what they are asked and what they say.

apf_halted_test and apf_halted_ways_test put a vCPU into an artificial halt (arch/x86/kvm/x86.c: apf.halted) for one of
several causes, change its state in one of several ways, and say whether it runs again; the first is the plain case.
apf_nested_test has an L2 touch a missing page, does something to the vCPU before L1 can be told, and says who is told.
apf_area_test changes the memory slot of the shared area before KVM writes a token there, or writes EN again, and says
where a token is written.
apf_guest_test has a guest that is not as most guests are touch a missing page, and says how it comes by it.
Their words are the ones below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from harness.errors import UsageError

SHORT_PROGRAM = "apf_halted_test"
"""It takes none."""
WAYS_PROGRAM = "apf_halted_ways_test"
"""It cannot do without arguments."""
NESTED_PROGRAM = "apf_nested_test"
AREA_PROGRAM = "apf_area_test"
GUEST_PROGRAM = "apf_guest_test"
HOST_PROGRAMS = (AREA_PROGRAM, GUEST_PROGRAM, SHORT_PROGRAM, WAYS_PROGRAM, NESTED_PROGRAM)
OUTPUT = "program/output.txt"
"""What the program wrote, both streams, in a capture."""
SKIPPED = 4
"""KSFT_SKIP of the kernel's selftests: the host cannot do it."""


class HaltCause(StrEnum):
    """Why KVM halts the vCPU instead of telling the guest of the missing page."""

    CPL0 = "cpl0"  # the touch is in kernel mode, and EN has no KVM_ASYNC_PF_SEND_ALWAYS
    OFF = "off"  # the guest has not enabled asynchronous page faults
    REPEATED = "repeated"  # the guest was told, and touched the page once more


class StateChange(StrEnum):
    """What userspace does to the halted vCPU."""

    RESET = "reset"  # registers, MSRs, local APIC, KVM_SET_MP_STATE, as a VMM resets a boot CPU
    EN0 = "en0"  # MSR_KVM_ASYNC_PF_EN = 0 and nothing else
    LOADVM = "loadvm"  # a reset, then EN as the guest had it
    MPSTATE = "mpstate"  # KVM_SET_MP_STATE = RUNNABLE and nothing else
    STOP_CONT = "stop-cont"  # out of KVM_RUN and in again
    NMI = "nmi"
    INIT_SIPI = "init-sipi"  # as another vCPU starts an AP
    REPLUG = "replug"  # a reset of a parked AP, then INIT and SIPI
    MIGRATE = "migrate"  # the guest goes on in another VM
    TICK = "tick"  # KVM_SET_LAPIC with an armed timer, and then its tick; not among "all"
    FORBIDDEN = "forbidden"  # mprotect, so that KVM_RUN ends with EFAULT, and back; not among "all"
    SHADOW = "shadow"  # no halt, as it touches in the shadow of STI, and its state is read and written; not among "all"
    KICKED = "kicked"  # a kick has ended a HLT before, and nothing else; not among "all"
    IN_SERVICE = "in-service"  # no halt: KVM_SET_LAPIC with another interrupt in service; not among "all"
    LISTED = "listed"  # as MIGRATE, and the MSRs have to be in KVM_GET_MSR_INDEX_LIST; not among "all"
    NMI_IN_NMI = "nmi-in-nmi"  # and another while the handler of the first runs; not among "all"
    KICK_TOLD = "kick-told"  # no halt: a kick, a ready event, and then the HLT; not among "all"
    KICK = "kick"  # as KVM_HC_KICK_CPU, and nothing else; not among "all"
    PV_WAIT = "pv-wait"  # no halt: a HLT with interrupts off and one that waits, and then a kick; not among "all"
    READ_ONLY = "read-only"  # nothing: its memory is one that the VMM may only read; not among "all"
    WINDOW = "window"  # no halt: an interrupt waits for RFLAGS.IF, and the task priority is 2; not among "all"
    SMI = "smi"  # and its handler returns; not among "all"
    EXTINT = "extint"  # an interrupt of the 8259's, through LINT0; not among "all"


_BY_NAME = (
    StateChange.TICK,
    StateChange.FORBIDDEN,
    StateChange.SHADOW,
    StateChange.KICKED,
    StateChange.IN_SERVICE,
    StateChange.LISTED,
    StateChange.NMI_IN_NMI,
    StateChange.KICK_TOLD,
    StateChange.KICK,
    StateChange.PV_WAIT,
    StateChange.READ_ONLY,
    StateChange.WINDOW,
    StateChange.SMI,
    StateChange.EXTINT,
)
"""Changes that "all" leaves out."""


class RunsAgain(StrEnum):
    """When the vCPU runs."""

    AT_ONCE = "at once"  # whether or not the page that it waited for is there
    WITH_PAGE = "with its page"
    NEVER = "never"
    AGAIN = "again and again"  # all the time, to ask for its page
    ODD = "odd"  # something else happened


class Between(StrEnum):
    """What happens between a token of an L2 and the next entry."""

    NOTHING = "nothing"
    SIGNAL = "signal"  # KVM_RUN is left and called again
    STATE = "state"  # and meanwhile KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS
    EXIT = (
        "exit"  # an interrupt for L1 ends its L2, and the page of L1's own token has come; only where it is asked for
    )
    INJECT = "inject"  # it is L1 that gives its L2 a token, and an interrupt for L1 waits; only where it is asked for
    UNPAGED = "unpaged"  # nothing, and its L2 has no paging; only where it is asked for
    ACKED = "acked"  # it is the token of a wake-all, and L2 writes ACK in L1's place; only where it is asked for
    SHADOW = "shadow"  # nothing, and L2 touches its page behind STI; L1 has not enabled; only where it is asked for
    UNMAPPED = "unmapped"  # L1 takes the page out of its nested tables; it has not enabled; only where it is asked for
    OWN_FAULT = "own-fault"  # as STATE, and then L2 makes a #PF that KVM finds; only where it is asked for
    NMI = "nmi"  # as SIGNAL, and an NMI comes meanwhile, which L1 intercepts as well; only where it is asked for


_ALONE = (
    Between.EXIT,
    Between.INJECT,
    Between.UNPAGED,
    Between.ACKED,
    Between.SHADOW,
    Between.UNMAPPED,
    Between.OWN_FAULT,
    Between.NMI,
)


_INTERCEPTED = (Between.UNPAGED, Between.OWN_FAULT, Between.NMI)


class Told(StrEnum):
    """Who is told of the token of an L2."""

    L1 = "told to L1"
    LEFT = "left behind"  # nobody: flags = 1 stays in the shared area
    TO_L2 = "given to L2"  # and flags = 1 stays
    ODD = "odd"  # something else happened
    HALT = "a halt in its place"  # and L2 goes on when the page is there


class AreaChange(StrEnum):
    """What the VMM does to the shared area, or to its memory slot, behind the write of EN."""

    KEPT = "kept"  # nothing
    MOVED = "moved"  # deleted, and created with other memory of the host; that of before is overwritten
    LOGGED = "logged"  # KVM_MEM_LOG_DIRTY_PAGES
    ENABLED = "enabled-again"  # it clears the token that it was written, and writes EN as it was
    PLUGGED = "plugged"  # it is created before EN is written, where the guest has read in vain
    CLEARED = "cleared"  # as LOGGED, and the guest clears the token when the log was read; only where it is asked for
    LOADED = "loaded"  # nothing; the LAPIC is off until KVM_SET_LAPIC says otherwise; only where it is asked for
    BASED = "based"  # the same with IA32_APIC_BASE of KVM_SET_SREGS; only where it is asked for
    HIGH = "high"  # nothing; the area lies above 4 GiB; only where it is asked for
    ROM = "rom"  # nothing; its slot is KVM_MEM_READONLY; only where it is asked for
    ACKED = "acked"  # as ENABLED, and it writes ACK in the guest's place; only where it is asked for
    UNPLUGGED = "unplugged"  # deleted, and it writes EN again as it was; only where it is asked for
    ENFORCED = "enforced"  # nothing; KVM_CAP_ENFORCE_PV_FEATURE_CPUID behind KVM_SET_CPUID2; only where it is asked for


_AREA_ALONE = (
    AreaChange.CLEARED,
    AreaChange.LOADED,
    AreaChange.BASED,
    AreaChange.HIGH,
    AreaChange.ROM,
    AreaChange.ACKED,
    AreaChange.UNPLUGGED,
    AreaChange.ENFORCED,
)


class Written(StrEnum):
    """What becomes of the token of a wake-all."""

    THERE = "written there"  # where the area lies now, and in the log, if there is one
    ELSEWHERE = "written elsewhere"
    NOT_LOGGED = "not logged"
    NOT_WRITTEN = "not written"
    REFUSED = "refused"  # EN is


class OddGuest(StrEnum):
    """What is special about a guest that touches a missing page."""

    RING1 = "ring1"  # it runs at CPL 1, and EN has no KVM_ASYNC_PF_SEND_ALWAYS
    PAGING32 = "paging32"  # 32 bits, and paging
    LOGGED = "logged"  # the page's slot is KVM_MEM_LOG_DIRTY_PAGES, and it writes
    ROM_PAGE = "rom-page"  # the page's slot is KVM_MEM_READONLY
    PRE_FAULT = "pre-fault"  # it is the VMM that asks for it, by KVM_PRE_FAULT_MEMORY
    POISONED = "poisoned"  # the page's memory has failed (MADV_HWPOISON)
    IN_NMI = "in-nmi"  # it touches the page in a handler of an NMI, with interrupts on
    FETCH = "fetch"  # the page holds its next instruction
    TABLE = "table"  # the page is a page table
    HIGH = "high"  # the page lies above 4 GiB, in a slot with a log
    LAST = "last"  # the page is the last of its slot; it was there, and the VMM has taken it away
    UNCONSUMED = "unconsumed"  # the flags of an earlier token stand in its shared area
    DEBUGGED = "debugged"  # the VMM has called KVM_SET_GUEST_DEBUG
    DIRTY_RING = "dirty-ring"  # the VMM has KVM_CAP_DIRTY_LOG_RING, and the page's slot is KVM_MEM_LOG_DIRTY_PAGES
    NO_PAYLOAD = "no-payload"  # the VMM lacks KVM_CAP_EXCEPTION_PAYLOAD; a token is pending when it reads the events
    SYNC_REGS = "sync-regs"  # the VMM reads and writes them in struct kvm_run (KVM_SYNC_X86_EVENTS)
    SMM = "smm"  # it touches the page in system management mode, whose memory is another there
    AREA_FORBIDDEN = "area-forbidden"  # the VMM may only read the shared area; of the wake-all
    PV_EOI = "pv-eoi"  # an interrupt of the same class is in service, which ends by PV EOI; of the wake-all
    SMM_TAKEN = "smm-taken"  # as SMM; it was there, and the VMM has taken it away
    RESTORED = "restored"  # it touches none: the VMM has KVM_SET_VCPU_EVENTS make its token pending
    MAPPED_TWICE = "mapped-twice"  # as LAST, and it has touched the page with CR0.WP = 0 and with 1
    LOADED_IRR = "loaded-irr"  # it touches none: the VMM has KVM_SET_LAPIC make its ready interrupt wait
    PAGING_ON = "paging-on"  # it has touched the page with paging off, and an NMI has it set CR0.PG
    ROM_WRITTEN = "rom-written"  # as ROM_PAGE, and it writes the page when it has read it
    ASKED_TWICE = "asked-twice"  # it touches the page behind its token with interrupts off
    HOLE = "hole"  # the VMM has unmapped the page
    ALIASED = "aliased"  # as LAST, and the page lies in two slots, and was touched in both
    HUGE = "huge"  # the page is one of 2 MiB
    HUGE_LOGGED = "huge-logged"  # as HUGE, and its slot is KVM_MEM_LOG_DIRTY_PAGES, and it writes two places of it
    ZERO_PAGE = "zero-page"  # nobody ever wrote the page, and the VMM does when the guest has read it


class Found(StrEnum):
    """How such a guest comes by its page."""

    TOLD = "told by a token"  # and by its ready event; what it has written is in the log, if there is one
    TOLD_ODDLY = "told otherwise"
    WAITED = "waited for"  # by the thread that asks for it
    HALTED = "halted for"
    AT_HAND = "there at once"
    UNLOGGED = "not logged"
    BUS_ERROR = "a bus error"  # of the vCPU's thread
    UNKNOWN = "not asked for"  # the kernel has no such call
    UNMAPPED = "not mapped ahead"  # its ready event came without
    TOLD_LATE = "told late"  # what should have come behind it was first
    FOR_VMM = "given to the VMM"  # which the write of a page in a ROM is
    BY_READ = "asked for as for a read"  # by a worker, which is to have it writable
    FAILED = "not to be had"  # KVM_RUN fails
    SMALL = "mapped by a small entry"  # a page of 2 MiB
    STALE = "there as it was before"  # the VMM has written it since


@dataclass(frozen=True, slots=True)
class AreaCase:
    """One test of the program about the shared area."""

    change: AreaChange

    def __str__(self) -> str:
        return f"area {self.change}"


@dataclass(frozen=True, slots=True)
class GuestCase:
    """One test of the program about unusual guests."""

    kind: OddGuest

    def __str__(self) -> str:
        return f"guest {self.kind}"


@dataclass(frozen=True, slots=True)
class HaltCase:
    """One test of the programs about halts."""

    cause: HaltCause
    change: StateChange

    def __str__(self) -> str:
        return f"{self.cause} {self.change}"


@dataclass(frozen=True, slots=True)
class TokenCase:
    """One test of the program about an L2.

    :ivar intercept: L1 intercepts #PF.
    """

    between: Between
    intercept: bool

    def __str__(self) -> str:
        return f"{self.between} {_INTERCEPT[self.intercept]}"


_INTERCEPT = ("no-intercept", "intercept")
_WHAT: Mapping[type, str] = {
    HaltCase: "vCPU runs",
    TokenCase: "token is",
    AreaCase: "wake-all is",
    GuestCase: "page is",
}
Case: TypeAlias = HaltCase | TokenCase | AreaCase | GuestCase
Outcome: TypeAlias = RunsAgain | Told | Written | Found


def sentence(case: Case, outcome: Outcome) -> str:
    """A test and its outcome, as the programs write it behind "ok 1 - "."""
    return f"{case}: the {_WHAT[type(case)]} {outcome}"


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """program/end.json: ``code`` is the exit code, negative for a signal."""

    code: int


EXIT = "program/end.json"


def cases(program: str, arguments: str) -> tuple[Case, ...]:
    """What this program tests with these arguments, in its order; of those about halts, the short one takes none.

    :raise UsageError: it does not know them.
    """
    words = arguments.split()
    if program == AREA_PROGRAM:
        if len(words) == 1 and words[0] in _AREA_ALONE:
            return (AreaCase(AreaChange(words[0])),)
        if words:
            raise UsageError(f"{program} takes no arguments but {' or '.join(_AREA_ALONE)}")
        return tuple(AreaCase(change) for change in AreaChange if change not in _AREA_ALONE)
    if program == GUEST_PROGRAM:
        if len(words) == 1 and words[0] in list(OddGuest):
            return (GuestCase(OddGuest(words[0])),)
        raise UsageError(f"{program} takes one of {', '.join(OddGuest)}")
    if program == NESTED_PROGRAM:
        if len(words) == 1 and words[0] in _ALONE:
            between = Between(words[0])
            return (TokenCase(between, intercept=between in _INTERCEPTED),)
        if words:
            raise UsageError(f"{program} takes no arguments but {' or '.join(_ALONE)}")
        told = (between for between in Between if between not in _ALONE)
        return tuple(TokenCase(between, intercept) for between in told for intercept in (False, True))
    if not words:
        return tuple(HaltCase(HaltCause.OFF, c) for c in (StateChange.STOP_CONT, StateChange.RESET, StateChange.EN0))
    if words == ["all"]:
        return tuple(HaltCase(cause, change) for change in StateChange if change not in _BY_NAME for cause in HaltCause)
    if len(words) == 2 and words[0] in list(HaltCause) and words[1] in list(StateChange):
        return (HaltCase(HaltCause(words[0]), StateChange(words[1])),)
    raise UsageError(f"{WAYS_PROGRAM} knows all, or CAUSE CHANGE, not {arguments!r}")


_LINE = re.compile(
    r"(?:not )?ok \d+ - (\S+) (\S+): the (vCPU runs|token is|wake-all is|page is) ([A-Za-z0-9 ]+?)(?:, .*)?"
)


def results(output: str) -> tuple[tuple[Case, Outcome], ...]:
    """What a program says of each of its tests.

    :raise UsageError: a line of TAP that none of them writes.
    """
    found: list[tuple[Case, Outcome]] = []
    for line in output.splitlines():
        if line.startswith(("ok ", "not ok ")) and " # SKIP " not in line:
            match = _LINE.fullmatch(line)
            if match is None:
                raise UsageError(f"{line!r} is no line of {' or '.join(HOST_PROGRAMS)}")
            try:
                found.append(_result(*match.groups()))
            except ValueError as exc:
                raise UsageError(f"{line!r}: {exc}") from exc
    return tuple(found)


def _result(first: str, second: str, what: str, outcome: str) -> tuple[Case, Outcome]:
    if what == "vCPU runs":
        return HaltCase(HaltCause(first), StateChange(second)), RunsAgain(outcome)
    if what == "wake-all is":
        if first != "area":
            raise ValueError(f"{first!r} is no area")
        return AreaCase(AreaChange(second)), Written(outcome)
    if what == "page is":
        if first != "guest":
            raise ValueError(f"{first!r} is no guest")
        return GuestCase(OddGuest(second)), Found(outcome)
    return TokenCase(Between(first), bool(_INTERCEPT.index(second))), Told(outcome)
