# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that sleeps for ever because the emulated processor forgot that STI holds interrupts back for a moment.

QEMU's target/i386/tcg/sysemu/svm_helper.c:cpu_vmexit (7.2) saves the shadow of STI in the VMCB's int_state, and
helper_vmrun never reads it: where an exit comes between STI and HLT, the interrupt that waits is taken at the HLT and
not behind it, and what it was to wake up sleeps.  The APM has it loaded (volume 2, 15.21.5).  KVM asks for the
interrupt window (enable_irq_window), and the processor says that it is open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.contract.kernel_trouble import Blame, Trouble
from harness.model.events import Event, Kind

_EXIT = re.compile(r"reason (\w+) rip (0x[0-9a-f]+)")
_ENTRY = re.compile(r"rip (0x[0-9a-f]+)")


@dataclass(slots=True)
class _Vcpu:
    """Where it is told that the window is open, an interrupt is injected, and it enters; then it halts there."""

    window: str = ""
    vector: int = 0
    taken: tuple[str, int, int] | None = None  # rip, vector, line
    asleep: bool = False


LOST_WAKEUP = "lost-wakeup"
"""The kind of this trouble."""


def lost_wakeup(events: Iterable[Event]) -> tuple[Trouble, int] | None:
    """The first vCPU that halted at the very instruction at which its last interrupt was taken, and never ran again;
    and the line of the trace, from 1, with which it took that interrupt."""
    vcpus: dict[int, _Vcpu] = {}
    for event in events:
        if event.vcpu < 0:
            continue
        vcpu = vcpus.setdefault(event.vcpu, _Vcpu())
        if event.kind is Kind.EXIT and (found := _EXIT.search(event.text)):
            reason, rip = found.groups()
            vcpu.window, vcpu.vector = rip if reason == "vintr" else "", 0
            vcpu.asleep = reason == "hlt" and vcpu.taken is not None and vcpu.taken[0] == rip
        elif event.kind is Kind.VIRQ:
            vcpu.vector = event.value
        elif event.kind is Kind.ENTRY:
            vcpu.asleep = False
            if vcpu.vector:
                at = _ENTRY.search(event.text)
                vcpu.taken = (at[1], vcpu.vector, event.line) if at and at[1] == vcpu.window else None
            vcpu.window, vcpu.vector = "", 0
    for index, vcpu in sorted(vcpus.items()):
        if vcpu.asleep and vcpu.taken is not None:
            rip, vector, line = vcpu.taken
            text = (
                f"the emulated processor let vCPU {index} take interrupt {vector:#x} between STI and its HLT at {rip}"
                f" (trace line {line}), so that the guest sleeps for ever: QEMU's helper_vmrun does not read int_state"
            )
            # A guest that was predicted to sleep for ever, and did all that was predicted, is none the worse for it.
            return Trouble(LOST_WAKEUP, Blame.MACHINE, text, 0, explains=True), line
    return None
