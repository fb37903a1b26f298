# SPDX-License-Identifier: GPL-2.0-or-later
"""A token between its injection and the record that the guest's #PF handler writes of it (D39), which a reset or an
INIT of the vCPU may prevent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.model.events import Event

if TYPE_CHECKING:
    from harness.model.protocol.vcpu_rules import SeenVcpu
    from harness.model.protocol.work_rules import SeenWork


@dataclass(frozen=True, slots=True)
class Unlogged:
    """A token that was injected, and of which the guest's log has no record before a start of the vCPU."""

    message: str
    inj: Event
    np: Event | None


def handed(vcpu: SeenVcpu, work: SeenWork, inj: Event) -> None:
    """The vCPU enters with the token: D39 where the guest's log has another one in its place."""
    tokens = vcpu.context.guest_tokens
    logged = None if tokens is None else tokens.get(vcpu.index)
    if logged is None:
        return
    lived_on(vcpu)
    if vcpu.tokens < len(logged) and logged[vcpu.tokens] != (work.token, 1):
        token, flags = logged[vcpu.tokens]
        message = f"token {work.token:#x} injected, the guest saw {token:#x} with flags {flags:#x}"
        if _at_a_start(vcpu):
            vcpu.unlogged = Unlogged(message, inj, work.np)
            return
        vcpu.say("D39", inj, message, work.np)
    vcpu.tokens += 1


def lived_on(vcpu: SeenVcpu) -> None:
    """The vCPU was given another token, or the recording ended, without a reset since: the handler of the last one had
    the time to write its record."""
    unlogged, vcpu.unlogged = vcpu.unlogged, None
    if unlogged is not None:
        vcpu.say("D39", unlogged.inj, unlogged.message, unlogged.np)


def _at_a_start(vcpu: SeenVcpu) -> bool:
    """The next record in the log is of a later life: ids of tokens go on over a reset (arch/x86/kvm/x86.c:
    kvm_arch_setup_async_pf, kvm_vcpu_reset), so that it cannot be of this token."""
    boots = (vcpu.context.guest_boots or {}).get(vcpu.index, ())
    return any(boot.tokens == vcpu.tokens for boot in boots[1:])
