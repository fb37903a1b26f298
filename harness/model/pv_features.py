# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest is offered of async page faults."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.cpu_model import Feature


@dataclass(slots=True)
class PvFeatures:
    """CPUID 0x40000001 bits 4, 10 and 14, and whether KVM enforces them (KVM_CAP_ENFORCE_PV_FEATURE_CPUID).

    QEMU does not ask for enforcement unless ``kvm-pv-enforce-cpuid`` is given: hidden features then stay usable
    (arch/x86/kvm/cpuid.h:guest_pv_has), the guest merely does not see them.
    """

    async_pf: bool = True
    vmexit: bool = True
    interrupt: bool = True
    enforced: bool = False

    def shows(self, feature: Feature) -> bool:
        """Whether CPUID has its bit."""
        match feature:
            case Feature.ASYNC_PF:
                return self.async_pf
            case Feature.ASYNC_PF_VMEXIT:
                return self.vmexit
            case Feature.ASYNC_PF_INT:
                return self.interrupt

    def has_async_pf(self) -> bool:
        return self.async_pf or not self.enforced

    def has_vmexit(self) -> bool:
        return self.vmexit or not self.enforced

    def has_interrupt(self) -> bool:
        return self.interrupt or not self.enforced
