# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of one guest access, and counts that may be ranges: shared by steps, simulation and judge."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

UNBOUNDED = 10**9
"""Upper end of a count that has none."""


class Outcome(StrEnum):
    """The outcome codes of behaviour.md, as seen from the vCPU thread V."""

    NONE = "no-fault"  # the guest had a mapping: no kvm_page_fault
    FAST = "fast"  # GUP-fast only, no handle_mm_fault
    MINOR = "minor"  # handle_mm_fault in V, no wait for I/O
    TOKEN = "token"  # asynchronous, "page not present" injected
    LEFT = "left-behind"  # asynchronous, made by an L2: flags = 1 was written for L1, and L1 was not told
    TO_L2 = "to-l2"  # asynchronous, made by an L2: it got the #PF that is L1's
    HALT = "halt"  # asynchronous, vCPU halted by KVM_REQ_APF_HALT
    QUEUED = "token-or-halt"  # seen only: asynchronous, and a reset or the end came before the entry that tells which
    REPEATED = "repeated"  # asynchronous work for the gfn is live: halt, no second token
    SYNC = "sync"  # V itself issues the read and waits for it
    BLOCK = "block"  # V issues nothing and waits for somebody else's I/O or lock
    ERROR = "error"  # KVM_RUN returns an error, or a signal
    LOOP = "loop"  # endless token/ready cycle: no forward progress
    EMUL = "emul"  # MMIO or emulation, no GUP


ASYNC = frozenset({Outcome.TOKEN, Outcome.LEFT, Outcome.TO_L2, Outcome.HALT, Outcome.QUEUED})
"""What kvm_async_pf_not_present begins."""


@dataclass(frozen=True, slots=True)
class Count:
    """A predicted count: exact when low == high, else an inclusive range with the reason why it is one."""

    low: int
    high: int
    reason: str = ""

    @staticmethod
    def exactly(n: int) -> Count:
        return Count(n, n)

    def allows(self, n: int) -> bool:
        return self.low <= n <= self.high

    def __str__(self) -> str:
        if self.low == self.high:
            return str(self.low)
        return f"{self.low}.." if self.high >= UNBOUNDED else f"{self.low}..{self.high}"
