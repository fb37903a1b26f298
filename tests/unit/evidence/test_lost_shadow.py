# SPDX-License-Identifier: GPL-2.0-or-later
"""An exit between STI and the access behind it, on a processor that forgets the shadow."""

from __future__ import annotations

import pytest

from harness.contract.capture import EMULATED, EMULATOR
from harness.contract.kernel_trouble import Blame
from harness.evidence.lost_shadow import loads_shadow, lost_shadow
from tests.unit.judge.golden import NAMES, load

CPU = "       CPU 1/KVM-594     [000] d..1.   290.725624: "
EXIT = CPU + "kvm_exit: vcpu {v} reason {reason} rip 0x{rip} info1 0x0 info2 0x1019008 intr_info 0x0 error_code 0x0\n"
ENTRY = CPU + "kvm_entry: vcpu 1, rip 0x101145\n"
FAULT = CPU + "kvm_page_fault: vcpu 1 rip 0x101145 address 0x0000000001019008 error_code 0x100000006\n"
TRY = CPU + "kvm_try_async_get_page: gva = 0x1019008, gfn = 0x1019\n"
OTHERS = TRY.replace("-594", "-593")
SHADOWED = {(1, 0x1019)}
IDS = (0, 1)


def trace(reason: str = "interrupt", rip: str = "101145", v: int = 1, behind: str = TRY) -> bytes:
    taken_out = EXIT.format(v=v, reason=reason, rip=rip)
    return (taken_out + ENTRY + EXIT.format(v=1, reason="npf", rip="101145") + FAULT + behind).encode()


def test_the_access_was_entered_anew() -> None:
    """As x3-112-72 of debian-6.12 had it on 2026-11-26: kvm_can_do_async_pf was true, and the vCPU halted."""
    found = lost_shadow(trace(), SHADOWED, IDS)
    assert found is not None
    trouble, line = found
    assert trouble.blame is Blame.MACHINE and "0x1019000" in trouble.line and line == 4


@pytest.mark.parametrize(
    "told",
    [
        trace(rip="101144"),  # before STI
        trace(v=0),  # another vCPU
        trace(behind=ENTRY + TRY),  # KVM saw a shadow
        trace(behind=OTHERS + ENTRY),
        trace(behind=""),
        trace(reason="npf"),  # the access itself, once more: it was resolved without the shadow's end
    ],
)
def test_nothing_was_lost(told: bytes) -> None:
    assert lost_shadow(told, SHADOWED, IDS) is None


@pytest.mark.parametrize(
    ("told", "loads"),
    [("11.1.2", True), ("10.0.13", True), ("7.2.22", False), ("9.2.0", False), ("", False), ("x", False)],
)
def test_whose_processor_loads_the_shadow(told: str, *, loads: bool) -> None:
    assert loads_shadow(f'{{"cmdline": "quiet {EMULATED} {EMULATOR}{told} panic=-1"}}'.encode()) is loads
    assert not loads_shadow(EMULATED.encode())


def test_the_lines_have_kvms_ids() -> None:
    found = lost_shadow(trace().replace(b"vcpu 1", b"vcpu 4"), SHADOWED, (0, 4))
    assert found is not None and "vCPU 1 left" in found[0].line
    assert lost_shadow(trace(), SHADOWED, (0, 4)) is None


def test_only_where_the_program_has_a_shadow() -> None:
    assert lost_shadow(trace(), {(1, 0x1020), (0, 0x1019)}, IDS) is None
    assert lost_shadow(trace(), (), IDS) is None


@pytest.mark.parametrize("name", NAMES)
def test_real_runs_have_none(name: str) -> None:
    gfns = {(vcpu, gfn) for vcpu in range(4) for gfn in range(0x1000, 0x1010)}
    assert lost_shadow(load(name)["trace/events.txt"], gfns, range(4)) is None
