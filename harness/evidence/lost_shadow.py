# SPDX-License-Identifier: GPL-2.0-or-later
"""An interrupt shadow that the emulated processor did not enter with.

QEMU's target/i386/tcg/sysemu/svm_helper.c:cpu_vmexit (7.2) saves the shadow of STI in the VMCB's int_state, but
helper_vmrun does not load it (APM volume 2, 15.21.5: VMRUN does).  An exit between STI and the instruction behind it,
to serve an interrupt of the host, so ends the shadow: KVM then sees an access with interrupts allowed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from harness.contract.kernel_trouble import Blame, Trouble

_LINE = re.compile(
    rb"kvm_exit: vcpu (\d+) reason (\S+) rip 0x([0-9a-f]+)[^\n]*"
    rb"|kvm_page_fault: vcpu (\d+) rip 0x([0-9a-f]+) address 0x([0-9a-f]+)"
)


def lost_shadow(trace: bytes, shadowed: Collection[tuple[int, int]], ids: Sequence[int]) -> tuple[Trouble, int] | None:
    """The first access in a shadow (vCPU, gfn) that was entered anew, and the line of its fault, from 1.

    :param shadowed: what the program touches behind an STI, and only so.
    :param ids: KVM's ids of the vCPUs, which the lines have, in the order of their numbers.
    """
    number = {vcpu_id: index for index, vcpu_id in enumerate(ids)}
    left: dict[int, bytes] = {}  # by vCPU: where it was taken out of the guest, for another reason than a page fault
    for found in _LINE.finditer(trace) if shadowed else ():
        if found[1] is not None:
            if found[2] != b"npf":
                left[number.get(int(found[1]), -1)] = found[3]
            continue
        vcpu, rip, gfn = number.get(int(found[4]), -1), found[5], int(found[6], 16) >> 12
        if left.pop(vcpu, b"") != rip or (vcpu, gfn) not in shadowed:
            continue
        line = trace.count(b"\n", 0, found.start()) + 1
        text = (
            f"the emulated processor lost an interrupt shadow: vCPU {vcpu} left the guest behind STI, and faulted on"
            f" {gfn << 12:#x} when it was back (trace line {line}): QEMU's helper_vmrun does not load int_state"
        )
        return Trouble("emulator", Blame.MACHINE, text, found.start()), line
    return None
