# SPDX-License-Identifier: GPL-2.0-or-later
"""The two switches of a LAPIC, as the probe guest writes them (guest-images/probe/cpu.c)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.model import delivery as d
from harness.model.events import MSR_IA32_APICBASE, MSR_X2APIC_SPIV

_ENABLE, _X2APIC = 1 << 11, 1 << 10  # of IA32_APIC_BASE; its other bits are left out, because nobody looks at them


@dataclass(frozen=True, slots=True)
class LapicWrite:
    """One write.  ``traced``: it is one of an MSR; ``effect``: what it does to whether the LAPIC is on."""

    msr: int
    data: int
    about: str
    traced: bool
    effect: Callable[[d.ApfState, bool], None]


def set_base(v: d.ApfState, on: bool) -> None:
    """lapic.c:kvm_lapic_set_base: switching the APIC on requests APF_READY."""
    if on and not v.lapic_hw:
        v.req_ready = True
    v.lapic_hw = on


def gives_interrupts(v: d.ApfState) -> bool:
    """Whether what has been accepted is delivered: by a LAPIC in the kernel whatever bit 8 of SPIV is, which only keeps
    interrupts from being accepted (arch/x86/kvm/lapic.c:kvm_apic_has_interrupt, __apic_accept_irq; QEMU's own:
    hw/intc/apic.c:apic_get_interrupt)."""
    return v.lapic_hw and (v.lapic_sw or v.lapic_in_kernel)


def writes(value: int, *, x2apic: bool) -> tuple[LapicWrite, ...]:
    """Of Op.LAPIC: SPIV bit 8 (0, 1), or IA32_APIC_BASE (2, 3); x2APIC mode is entered from xAPIC mode only."""
    on = value & 1
    if not value & 2:
        about = "a write of the spurious-interrupt vector register"
        return (LapicWrite(MSR_X2APIC_SPIV, 0xFF | on << 8, about, x2apic, d.set_lapic_software_enable),)
    modes = ((_ENABLE, _ENABLE | _X2APIC) if x2apic else (_ENABLE,)) if on else (0,)
    about = "a write of IA32_APIC_BASE"
    return tuple(LapicWrite(MSR_IA32_APICBASE, mode, about, True, set_base) for mode in modes)
