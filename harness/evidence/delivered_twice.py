# SPDX-License-Identifier: GPL-2.0-or-later
"""An interrupt that the emulated processor gave to the guest a second time.

QEMU's target/i386/tcg/sysemu/svm_helper.c:helper_vmrun (7.2) delivers an injected interrupt itself and leaves
its vector in CPUState.exception_index; a kick of the vCPU thread that comes before anything clears it lets
accel/tcg/cpu-exec.c:cpu_handle_exception deliver it again, as an exception.  The VMCB then names what no processor can
have: an exception (type 3, APM volume 2, 15.7.2) whose vector is that of an interrupt.  So it does of a virtual
interrupt (V_IRQ) whose delivery ends in a nested page fault (target/i386/tcg/seg_helper.c:handle_even_inj), which
delivers it a second time, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from harness.contract.kernel_trouble import Blame, Trouble

_TWICE = re.compile(rb" intr_info 0x[08]0000[3b]([2-9a-f][0-9a-f])\b")


def delivered_twice(trace: bytes, own: Collection[int] = range(256)) -> tuple[Trouble, int] | None:
    """The first one that the text of a trace shows, and its line, from 1; of what went otherwise behind it nothing can
    be concluded about the kernel.

    :param own: vectors that tell of async page faults: such a one too many may stand for one that was never sent, so
        that nothing can be concluded of what went as predicted either.
    """
    for found in _TWICE.finditer(trace):
        at = trace.find(b"kvm_exit: ", trace.rfind(b"\n", 0, found.start()) + 1, found.start())
        if at >= 0:
            break
    else:
        return None
    line = trace.count(b"\n", 0, at) + 1
    vector = int(found[1], 16)
    text = (
        f"the emulated processor delivered interrupt {vector:#x} a second time, as an exception (trace line {line}):"
        " QEMU's helper_vmrun leaves it in exception_index"
    )
    return Trouble("emulator", Blame.MACHINE, text, at, explains=vector not in own), line
