# SPDX-License-Identifier: GPL-2.0-or-later
"""NMIs that the VMM has queued for a vCPU by KVM_NMI, and that it has not taken."""

from __future__ import annotations

from harness.model.kernels import KernelModel

NMIS_AT_ONCE = 2
"""One that is given and one behind it, however many were queued (arch/x86/kvm/x86.c:process_nmi)."""


def nmis_left(kernel: KernelModel, queued: int, *, init: bool = False) -> int:
    """How many are left behind KVM_SET_VCPU_EVENTS of a reset or load (QEMU's target/i386/kvm/kvm.c:
    kvm_put_vcpu_events).  The VMM read the events before it queued the first, so that they are not in what it writes.

    :param init: behind x86.c:kvm_vcpu_reset, which leaves none.
    """
    return 0 if init or not kernel.put_keeps_queued_nmis else queued
