# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that run on the host under test and are their own VMM: reproducers/, what they are asked and what they say.

They put a vCPU into an artificial halt (arch/x86/kvm/x86.c: apf.halted) for one of several causes, change its state in
one of several ways, and say whether it runs again.  apf_halted_test is the plain case, apf_halted_ways_test has all of
them.  Their words are the ones below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError

SHORT_PROGRAM = "apf_halted_test"
"""It takes no arguments; the other cannot do without."""
HOST_PROGRAMS = (SHORT_PROGRAM, "apf_halted_ways_test")
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


class RunsAgain(StrEnum):
    """When the vCPU runs."""

    AT_ONCE = "at once"  # whether or not the page that it waited for is there
    WITH_PAGE = "with its page"
    NEVER = "never"
    ODD = "odd"  # something else happened


@dataclass(frozen=True, slots=True)
class HaltCase:
    """One test of such a program."""

    cause: HaltCause
    change: StateChange

    def __str__(self) -> str:
        return f"{self.cause} {self.change}"


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """program/end.json: ``code`` is the exit code, negative for a signal."""

    code: int


EXIT = "program/end.json"


def cases(arguments: str) -> tuple[HaltCase, ...]:
    """What is tested with these arguments, in its order: without any, what the short program tests.

    :raise UsageError: no program knows them.
    """
    words = arguments.split()
    if not words:
        return tuple(HaltCase(HaltCause.OFF, c) for c in (StateChange.STOP_CONT, StateChange.RESET, StateChange.EN0))
    if words == ["all"]:
        return tuple(HaltCase(cause, change) for change in StateChange for cause in HaltCause)
    if len(words) == 2 and words[0] in list(HaltCause) and words[1] in list(StateChange):
        return (HaltCase(HaltCause(words[0]), StateChange(words[1])),)
    raise UsageError(f"apf_halted_ways_test knows all, or CAUSE CHANGE, not {arguments!r}")


_LINE = re.compile(r"(?:not )?ok \d+ - (\S+) (\S+): the vCPU runs ([a-z ]+?)(?:, .*)?")


def results(output: str) -> tuple[tuple[HaltCase, RunsAgain], ...]:
    """What the program says of each of its tests.

    :raise UsageError: a line of TAP that it does not write.
    """
    found = []
    for line in output.splitlines():
        if line.startswith(("ok ", "not ok ")) and " # SKIP " not in line:
            match = _LINE.fullmatch(line)
            if match is None:
                raise UsageError(f"{line!r} is no line of {' or '.join(HOST_PROGRAMS)}")
            try:
                found.append((HaltCase(HaltCause(match[1]), StateChange(match[2])), RunsAgain(match[3])))
            except ValueError as exc:
                raise UsageError(f"{line!r}: {exc}") from exc
    return tuple(found)
