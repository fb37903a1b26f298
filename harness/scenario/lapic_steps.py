# SPDX-License-Identifier: GPL-2.0-or-later
"""What a probe vCPU may do while its LAPIC is off by IA32_APIC_BASE: nothing that needs one."""

from __future__ import annotations

from collections.abc import Iterator

from harness.contract.plan import HostWord
from harness.scenario.schema import Scenario, Step


def check_base(s: Scenario) -> Iterator[str]:
    """Problems with the words base-off and base-on, as lines with the key path."""
    if not any(t.lapic.startswith("base-") for t in s.steps):
        return
    if s.guest.irqchip == "off":
        yield "$.guest.irqchip: a LAPIC in QEMU is not switched by base-off: set irqchip to on or split"
    words = {h.do for t in s.steps for h in t.host} | {h.do for t in s.timed for h in t.host}
    for word in (HostWord.NMI, HostWord.SYNC, HostWord.SAVEVM, HostWord.LOADVM, HostWord.RESET):
        if word in words:
            yield f"$.steps: {word} sets the state of LAPICs, or needs one, and cannot go with base-off"
    if s.guest.vcpus > 1 and any(t.reset for t in s.steps):
        yield "$.steps: a reset switches the LAPICs of all vCPUs on, wherever each is: one vCPU, or no base-off"
    if any(t.init != -1 or t.eject != -1 for t in s.steps):
        yield "$.steps: an INIT does not reach a vCPU without its LAPIC: init and eject cannot go with base-off"
    off: set[int] = set()
    for i, t in enumerate(s.steps):
        if t.reset:
            off.clear()
        if t.lapic.startswith("base-"):
            if (t.lapic == "base-off") is (t.vcpu in off):
                now = "off" if t.vcpu in off else "on"
                yield f"$.steps[{i}].lapic: {t.lapic} of vCPU {t.vcpu}, whose LAPIC is {now}"
            off ^= {t.vcpu}
        elif t.vcpu in off and (needs := _needs(t)):
            yield f"$.steps[{i}].{needs}: vCPU {t.vcpu} has no LAPIC between its base-off and base-on"


def _needs(t: Step) -> str:
    """The key of a step that needs the LAPIC; empty: none."""
    if t.level == 2:
        return "level"
    return "lapic" if t.lapic else "timer_us" if t.timer_us >= 0 else ""
