# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of programs that switch their LAPIC off and on."""

from __future__ import annotations

from harness.judge.verdict import judge_capture
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture


def test_what_was_accepted_is_delivered_although_the_lapic_is_software_disabled_meanwhile() -> None:
    """5.10: the ready interrupt is accepted with interrupts off, behind which the guest clears bit 8 of SPIV; it takes
    the interrupt before it sets the bit again (arch/x86/kvm/lapic.c:kvm_apic_has_interrupt asks for no more than the
    enable bit of IA32_APIC_BASE)."""
    files = packed_capture("explored-accepted-before-the-lapic-was-off")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason


def test_no_nmi_comes_to_a_lapic_that_is_software_disabled() -> None:
    """QEMU looks whether LINT1 is masked, which apic_set_spiv sees to (arch/x86/kvm/lapic.c); inject-nmi was done, and
    the other vCPU has had its own."""
    files = packed_capture("explored-nmi-to-a-lapic-that-is-off")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason
    assert next(row.seen for row in verdict.totals if row.name == "NMI") == 1
