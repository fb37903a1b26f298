# SPDX-License-Identifier: GPL-2.0-or-later
"""A ready interrupt between its RDY and the guest's handler: what the guest finds there (D39), and what never gets
there (D16), because a reset or an INIT has emptied the LAPIC before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.model.events import LOWEST_VECTOR, Event, Kind

if TYPE_CHECKING:
    from harness.model.protocol.vcpu_rules import SeenVcpu

_END_OF_LOG = -1


@dataclass(slots=True)
class Announced:
    """A ready interrupt that the guest is given once it takes any."""

    ready: Event
    irq: Event
    injected: bool
    said: bool = False  # that it was not injected where it had to be


def inject(vcpu: SeenVcpu, vector: int) -> None:
    """kvm_inj_virq; of a ready event mostly before the ENTRY that decides what that was."""
    for told in (vcpu.told, vcpu.last):
        irq = told.irq if told is not None else None
        if told is not None and irq is not None and irq.value == vector:
            told.injected = True


def compare(vcpu: SeenVcpu) -> None:
    """The guest has taken the last ready interrupt: D39."""
    told, vcpu.told = vcpu.told, None
    logged = _next_in_log(vcpu)
    if told is None or logged is None:
        return
    if logged not in (told.ready.token, _END_OF_LOG):
        message = f"RDY of token {told.ready.token:#x} with interrupt, the guest saw {logged:#x}"
        vcpu.say("D39", told.ready, message)
    vcpu.readies += 1


def take_away(vcpu: SeenVcpu) -> None:
    """The LAPIC was reset (arch/x86/kvm/lapic.c:kvm_lapic_reset, KVM_SET_LAPIC): what it had accepted and the guest
    had not taken is gone, and so is what was injected before the handler wrote it down, or before an entry that a
    signal prevented (arch/x86/kvm/x86.c:kvm_vcpu_exit_request)."""
    for ready in vcpu.batch:  # since the last entry
        if ready.irq is not None and not ready.lost and ready.irq.value >= LOWEST_VECTOR:
            ready.lost = True
            vcpu.counts.acc_lost += 1
    told, next_life = vcpu.told, _next_life(vcpu)
    if told is not None:
        taken = told.injected or Kind.VIRQ not in vcpu.shared.recorded
        if taken and vcpu.readies != next_life and _next_in_log(vcpu) in (told.ready.token, None):
            compare(vcpu)
        else:
            vcpu.told = None
            vcpu.counts.acc_lost += 1
    vcpu.boots += vcpu.ran and vcpu.readies == next_life  # one start behind a reset and the INIT that follows it
    vcpu.ran = False


def _next_life(vcpu: SeenVcpu) -> int:
    """How many ready tokens the guest's log has before the vCPU's next start: those of another life may be the same, as
    those of wake-alls are.  -1: it has no further start."""
    boots = (vcpu.context.guest_boots or {}).get(vcpu.index, ())
    return boots[vcpu.boots].readies if vcpu.boots < len(boots) else -1


def _next_in_log(vcpu: SeenVcpu) -> int | None:
    """The token that the guest's log has next; _END_OF_LOG; None: there is no log."""
    readies = vcpu.context.guest_readies
    logged = None if readies is None else readies.get(vcpu.index)
    if logged is None:
        return None
    return logged[vcpu.readies] if vcpu.readies < len(logged) else _END_OF_LOG
