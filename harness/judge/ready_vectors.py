# SPDX-License-Identifier: GPL-2.0-or-later
"""The interrupts that tell a guest that a page is ready."""

from __future__ import annotations

from harness.contract.plan import Plan
from harness.contract.words import Op
from harness.model.events import MSR_ASYNC_PF_INT

_HYPERVISOR_CALLBACK_VECTOR = 0xF3


def ready_vectors(plan: Plan) -> frozenset[int]:
    """What the guest's program gives to MSR_KVM_ASYNC_PF_INT, and what Linux does (arch/x86/include/asm/irq_vectors.h:
    HYPERVISOR_CALLBACK_VECTOR)."""
    written = (i.value & 0xFF for i in plan.items if i.op is Op.WRMSR and i.msr == MSR_ASYNC_PF_INT)
    return frozenset({_HYPERVISOR_CALLBACK_VECTOR, plan.guest.apf.vector, *written})
