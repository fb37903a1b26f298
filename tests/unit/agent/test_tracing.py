# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read from trace text."""

from __future__ import annotations

from harness.agent.tracing import outstanding

NP = " CPU 0/KVM-163 [000] ..... 14.2: kvm_async_pf_not_present: token 0x{0:x} gva 0x1000\n"
READY = " CPU 0/KVM-163 [000] ..... 14.3: kvm_async_pf_ready: token 0x{0:x} gva 0x1000\n"


def test_outstanding() -> None:
    assert outstanding("# tracer: nop\n") == 0
    trace = READY.format(0xFFFFFFFF) + NP.format(0x1000) + NP.format(0x2000)
    assert outstanding(trace) == 2
    assert outstanding(trace + READY.format(0x1000)) == 1
    assert outstanding(trace + READY.format(0xFFFFFFFF)) == 2
