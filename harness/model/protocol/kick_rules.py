# SPDX-License-Identifier: GPL-2.0-or-later
"""A worker kicks its vCPU: D69.

async_pf_execute (virt/kvm/async_pf.c) puts its work on the done list; where the list was empty it asks for a look
at it and kicks the vCPU, unless an ACK is owed (arch/x86/kvm/x86.c:kvm_arch_async_page_present_queued).  Then it traces
DONE, and wakes the vCPU if it sleeps.  A vCPU that runs in the guest looks at the list when it comes out, and only the
kick has it come out: without it the guest is told by the next tick of the host's, or by none on a processor that has
no ticks (nohz_full).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.model.events import LOWEST_VECTOR, Event
from harness.model.protocol.wake_all import WakeAll
from harness.model.protocol.work_rules import SeenWork

if TYPE_CHECKING:
    from harness.model.protocol.vcpu_rules import SeenVcpu


@dataclass(slots=True)
class Kicked:
    """Of one vCPU: whether a worker that comes back from its page finds an empty list, and no ACK owed.

    :ivar told_ns: of its last ready event, or of its last ACK: what was on the list, or was owed, before it is not
        known any more.
    :ivar unsure: since the last ACK a ready interrupt was lost, which owes one all the same, or something has dropped
        what was on the list, and may have queued a wake-all that no trace tells of (KVM_SET_MSRS).
    :ivar presents: a ready event was traced, and its interrupt not yet: in between, behind the token word, an ACK comes
        to be owed (arch/x86/kvm/x86.c:kvm_arch_async_page_present).
    """

    told_ns: int = -1
    unsure: bool = False
    presents: bool = False

    def ready(self, vcpu: SeenVcpu, event: Event) -> None:
        """kvm_async_pf_ready."""
        self.told_ns, self.presents = event.t_ns, True
        self.unsure = self.unsure or (vcpu.int_vec or 0) < LOWEST_VECTOR

    def acknowledges(self, event: Event) -> None:
        """A write of ACK."""
        self.told_ns, self.unsure, self.presents = event.t_ns, False, False

    def completed(self, vcpu: SeenVcpu, work: SeenWork, done: Event, returned_ns: int) -> None:
        """DONE of this work alone, and its worker, which came back from its page then, has kicked nobody since: D69."""
        alone = vcpu.known and len(vcpu.live) == 1 and vcpu.live.get(work.token) is work
        owed = vcpu.sleep.owes is not None or self.presents or self.unsure
        if not alone or owed or vcpu.wake_all is not WakeAll.NO or not returned_ns > 0 or self.told_ns >= returned_ns:
            return
        if vcpu.context.faults is not None:  # a probe guest, recorded from its first ready event on
            message = f"the worker of token {work.token:#x} has not kicked the vCPU, which owes no ACK"
            vcpu.say("D69", done, message, work.np)
