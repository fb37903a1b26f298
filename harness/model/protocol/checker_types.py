# SPDX-License-Identifier: GPL-2.0-or-later
"""What the protocol checker says: violations, obligations still open, rules not checked, counts.  Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.events import Event
from harness.model.protocol.rules import RULES


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule was broken.  ``event`` is the first event that shows it; None for counters at the end."""

    rule: str
    event: Event | None
    message: str
    related: tuple[Event, ...] = ()
    vcpu: int = -1

    @property
    def strict(self) -> bool:
        """False: a hint, no proof."""
        return RULES[self.rule].strict


@dataclass(frozen=True, slots=True)
class Obligation:
    """Something that still had to happen when the trace ended: NP without RDY, INJ without ENTRY, DONE missing.

    ``suspended``: the rules allow it to stay open (the shared area is unreadable, D44).
    """

    rule: str
    event: Event | None
    message: str
    vcpu: int = -1
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A rule that was not, or only in part, checked, and why."""

    rule: str
    reason: str
    partly: bool = False


@dataclass(slots=True)
class Counts:
    """How often each thing happened on one vCPU (or in the VM: ``Counts.sum``).  DONE is known for the VM only."""

    pf: int = 0
    try_: int = 0
    np: int = 0
    npt: int = 0  # NP that ended in token injection
    nph: int = 0  # NP that ended in artificial halt
    undecided: int = 0  # NP that a reset or the end overtook: a token or a halt, and no event tells which
    rep: int = 0
    fail: int = 0  # TRY with neither NP nor REP
    done: int = 0
    rdy: int = 0  # wake-alls not included
    rdy_wake_all: int = 0
    inj: int = 0  # #PF with code 0, not reinjected
    inj_reinjected: int = 0
    acc: int = 0  # the current int_vec accepted by the vCPU's own thread
    acc_lost: int = 0  # of these, what the LAPIC never hands on (LOWEST_VECTOR), or a reset took from it
    ack: int = 0  # ACK writes with bit 0

    def add(self, other: Counts) -> None:
        """Add another's counts to these."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
