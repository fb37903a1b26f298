# SPDX-License-Identifier: GPL-2.0-or-later
"""Where one vCPU's shared area lies (struct kvm_vcpu_pv_apf_data), and what the words of those hold that it has left.

Each effective write of EN has KVM look its address up again (arch/x86/kvm/x86.c:kvm_pv_enable_async_pf), and the
guest's handlers use that address from then on (guest-images/probe/memory.c:apf_area).  Flags and token word of the area
in use are in ApfState; a word that was written into another stays there.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from harness.contract.probe_abi import PAGE_SIZE, SHARED_GPA
from harness.contract.words import Thread
from harness.model.delivery import ApfState, Setup, Work, kvm_can_deliver_async_pf
from harness.model.pages import PRESENT, Pte
from harness.model.simulation.engine import Wait
from harness.model.simulation.host_memory import Memory
from harness.model.simulation.situation import GuestStart
from harness.model.walk import gup
from harness.model.walk.steps import End
from harness.model.walk.user_access import user_access

_FLAGS = 63


@dataclass(slots=True)
class SharedArea:
    """``first``: the address at the start, ``first_page``: the pool page that it lies in, 0 if in none (no other area
    may lie in one, harness/scenario/shared_area.py)."""

    first: int
    first_page: int
    at: int = field(init=False)
    left: dict[int, tuple[int, int]] = field(default_factory=dict)  # address -> flags and token word

    @classmethod
    def of(cls, guest: GuestStart, vcpu: int) -> SharedArea:
        """That a vCPU has at the start."""
        return cls(guest.en_gpa if guest.en_gpa >= 0 else SHARED_GPA + PAGE_SIZE * vcpu, guest.area_gpa)

    def __post_init__(self) -> None:
        self.at = self.first

    @property
    def page(self) -> int:
        """The pool page of the area in use; 0: it lies in a page that is always resident and mapped."""
        return self.first_page if self.at == self.first else 0

    def move(self, state: ApfState, en_value: int) -> None:
        """EN has this value now, and enables."""
        to = en_value & ~_FLAGS or self.first
        if to != self.at:
            self.left[self.at] = state.flags, state.token
            state.flags, state.token = self.left.pop(to, (0, 0))
            self.at = to

    def access(self, memory: Memory, state: ApfState, vcpu: int, *, write: bool) -> Generator[Wait, None, bool]:
        """KVM's own: copy_from_user or copy_to_user faults a missing page in, in the vCPU's thread.  False: it cannot
        be (no memslot, or a page whose read fails)."""
        if not (state.shared_ok or state.area_bound):  # WARN_ON_ONCE(len + offset > ghc->len), which is 0
            memory.world.known_faults.append("F11")
        if not self.page or not state.shared_ok:
            return state.shared_ok
        pte = memory.page(self.page).pte
        if pte is Pte.WRITABLE or (not write and pte in PRESENT):
            return True
        if state.kernel.era_2010:
            walk = gup.blocking_attempt(state.kernel, write=write, env=memory.env)
        else:
            walk = user_access(state.kernel, write=write, env=memory.env)
        got = yield from memory.perform(walk, self.page, Thread.V, vcpu)
        return got.end is End.MAPPED

    def start_anew(self, state: ApfState) -> None:
        """The guest boots again: its start-up code zeroes what is no page of the pool."""
        self.move(state, 0)
        self.left.clear()
        if not self.first_page:
            state.flags = state.token = 0


def cannot_tell(v: ApfState, work: Work, flags: int) -> Setup:
    """x86.c:kvm_arch_async_page_not_present, apf_put_user_notpresent having failed; ``flags``: what the word holds."""
    v.flags = flags
    v.exception_pending = v.exception_vmexit = v.req_event = False
    work.notpresent_injected = False
    v.req_halt = True
    return Setup.HALT


def why_halted(v: ApfState) -> str:
    """Why a work that has been queued just now halts its vCPU (kvm_arch_async_page_not_present)."""
    return "apf_put_user_notpresent fails" if kvm_can_deliver_async_pf(v) else "kvm_can_deliver_async_pf is false"
