# SPDX-License-Identifier: GPL-2.0-or-later
"""What a probe vCPU may do while its LAPIC is off by IA32_APIC_BASE: nothing that needs one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    if any(t.eject != -1 for t in s.steps):
        yield "$.steps: an INIT does not reach a vCPU without its LAPIC: eject cannot go with base-off"
    for i, t in enumerate(s.steps):
        if t.init != -1 and not _has_its_lapic(s.steps, i):
            yield (
                f"$.steps[{i}].init: an INIT does not reach a vCPU without its LAPIC: an after has to say that vCPU "
                f"{t.init} is past its last base-on"
            )
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


def _has_its_lapic(steps: Sequence[Step], at: int) -> bool:
    """The vCPU to which this step gives an INIT has its LAPIC whenever the step is performed, also in its next life."""
    init = steps[at]
    switches = [i for i, t in enumerate(steps) if t.vcpu == init.init and t.lapic.startswith("base-")]
    behind = {t.after for t in steps[:at] if t.vcpu == init.vcpu and t.after}
    on = [i for i, t in enumerate(steps) if t.vcpu == init.init and t.name and t.name in behind]
    return not switches or (steps[switches[-1]].lapic == "base-on" and any(i >= switches[-1] for i in on))


def _needs(t: Step) -> str:
    """The key of a step that needs the LAPIC; empty: none."""
    if t.level == 2:
        return "level"
    return "lapic" if t.lapic else "timer_us" if t.timer_us >= 0 else ""
