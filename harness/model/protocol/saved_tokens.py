# SPDX-License-Identifier: GPL-2.0-or-later
"""A token that a vCPU was about to be given when the VMM saved it: the guest has it when the snapshot was loaded.

QEMU saves a pending #PF, unless an L2 runs, as one that is injected, and its payload as CR2 (7.2,
target/i386/machine.c:cpu_pre_save).  So KVM traces its injection as a repeated one, the first time, too
(arch/x86/kvm/x86.c of 6.1 and 7.3: kvm_inj_exception with exception.injected).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.model.events import Event
from harness.model.protocol.l2_rules import area_handled
from harness.model.protocol.token_rules import handed
from harness.model.protocol.work_rules import SeenWork

if TYPE_CHECKING:
    from harness.model.protocol.vcpu_rules import SeenVcpu


@dataclass(slots=True)
class SavedToken:
    """``before``: its injection was traced before, for an entry that did not come; ``again``: behind the load."""

    work: SeenWork
    before: Event | None
    again: Event | None = None


def keep(vcpu: SeenVcpu, *, loaded: bool) -> None:
    """The vCPU lost its state, by a load of what was saved or by a reset.  Of an NP that put it to sleep no #PF was
    pending; behind a second load is what was behind the first, if it has not entered between."""
    work = vcpu.fresh
    if not loaded:
        vcpu.saved = None
    elif work is not None and not work.guest_mode and (vcpu.inj is not None or not vcpu.slept):
        vcpu.saved = SavedToken(work, vcpu.inj)


def injected_again(vcpu: SeenVcpu, event: Event) -> None:
    """A #PF with code 0 is injected again: the saved token, if one was saved."""
    saved = vcpu.saved
    if saved is None or saved.again is not None:
        return
    saved.again = event
    vcpu.busy = True
    if saved.before is None:  # count_undecided did not know
        vcpu.counts.inj += 1
        vcpu.counts.npt += 1
        vcpu.counts.undecided -= 1


def entered_with(vcpu: SeenVcpu) -> None:
    """The vCPU enters, with the saved token if that was injected: D39; from now on none is saved."""
    saved, vcpu.saved = vcpu.saved, None
    if saved is not None and saved.again is not None:
        saved.work.tokened = True
        area_handled(vcpu)
        handed(vcpu, saved.work, saved.again)
