# SPDX-License-Identifier: GPL-2.0-or-later
"""An interrupt shadow that the emulated processor did not enter with.

QEMU's target/i386/tcg/sysemu/svm_helper.c:cpu_vmexit (7.2) saves the shadow of STI in the VMCB's int_state, but
helper_vmrun does not load it (APM volume 2, 15.21.5: VMRUN does; so do QEMU 10.0 and 11.1).  An exit between STI and
the instruction behind it, to serve an interrupt of the host, so ends the shadow: KVM then sees an access with
interrupts allowed (arch/x86/kvm/x86.c:kvm_can_do_async_pf), and tries an asynchronous page fault.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from harness.contract.capture import EMULATOR
from harness.contract.kernel_trouble import Blame, Trouble

_LINE = re.compile(
    rb"kvm_exit: vcpu (\d+) reason (\S+) rip 0x([0-9a-f]+)[^\n]*"
    rb"|kvm_page_fault: vcpu (\d+) rip 0x([0-9a-f]+) address 0x([0-9a-f]+)"
)
_TRIED = re.compile(rb"-(\d+) +\[\d+\][^:]*: (kvm_try_async_get_page|kvm_entry): ")
_THREAD = re.compile(rb"-(\d+) +\[\d+\]")
_EMULATOR = re.compile(re.escape(EMULATOR.encode()) + rb"(\d+)\.")
_LOADS_IT = 10  # the first release of which it is known


def loads_shadow(facts: bytes) -> bool:
    """Whether the host's facts.json tells of an emulated processor that loads int_state at VMRUN."""
    found = _EMULATOR.search(facts)
    return found is not None and int(found[1]) >= _LOADS_IT


def _tried(trace: bytes, fault: int) -> bool:
    """KVM saw interrupts allowed at the page fault whose line has this place: before the next entry it tried one."""
    begin = trace.rfind(b"\n", 0, fault) + 1
    thread = _THREAD.search(trace, begin, fault)
    own = (found[2] for found in _TRIED.finditer(trace, fault) if thread is not None and found[1] == thread[1])
    return next(own, b"") == b"kvm_try_async_get_page"


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
        again = left.pop(vcpu, b"") == rip and (vcpu, gfn) in shadowed
        if not again or not _tried(trace, found.start()):
            continue
        line = trace.count(b"\n", 0, found.start()) + 1
        text = (
            f"the emulated processor lost an interrupt shadow: vCPU {vcpu} left the guest behind STI, and faulted on"
            f" {gfn << 12:#x} when it was back (trace line {line}): QEMU's helper_vmrun does not load int_state"
        )
        return Trouble("emulator", Blame.MACHINE, text, found.start()), line
    return None
