# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe guest as a hypervisor: what it logs of its L2, under plain QEMU, whose TCG emulates SVM.

Without KVM below there is no token; what one does to an L2 is seen in virtual hosts (tests/scenarios/S13*.toml).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.guest_images import probe_rig as rig
from tests.unit.guest_images.probe_rig import INTERRUPTS, LEVEL2, NONCE, POOL, Record, Step, encode_items, start_guest

CONTENT = 0x0123456789ABCDEF
FLAGS = 0x1B | rig.L2_GUEST
SOUND = rig.NPT | rig.INTERCEPT_INTR | rig.INTR_MASKING | rig.L1_INTERRUPTS
VMMCALL, INTR, VINTR = 0x81, 0x60, 0x64


def exits(log: list[Record]) -> list[tuple[int, int]]:
    """(item, exit code) of each exit; the record of the words follows each."""
    found = []
    for n, record in enumerate(log):
        if record.kind == rig.L2_EXIT:
            assert (log[n + 1].kind, log[n + 1].item, log[n + 1].a, log[n + 1].b) == (rig.L2_WORDS, record.item, 0, 0)
            found.append((record.item, record.a & 0xFFFFFFFF))
    return found


@pytest.mark.parametrize("npt", [0, rig.NPT, rig.NPT | rig.MOVED])
@pytest.mark.parametrize("machine", ["microvm", "q35"])
def test_an_l2_reads_and_writes_at_both_levels(probe_elf: Path, tmp_path: Path, machine: str, npt: int) -> None:
    kinds = [(cpl, flags, write) for cpl in (0, 3) for flags in (0, INTERRUPTS) for write in (False, True)]
    steps = [
        Step(rig.TOUCH, gpa=POOL + 4096 * n, cpl=cpl, flags=flags | LEVEL2, write=write)
        for n, (cpl, flags, write) in enumerate(kinds)
    ]
    steps.append(Step(rig.TOUCH, gpa=POOL))
    items = encode_items(steps, flags=FLAGS, l2=SOUND & ~rig.NPT | npt)
    with start_guest(probe_elf, tmp_path, items, machine=machine) as guest:
        guest.wait_state(rig.READY)
        for n in range(len(kinds)):
            guest.put64(POOL + 4096 * n, CONTENT + n)
        log = guest.run()
        assert exits(log) == [(100 + n, VMMCALL) for n in range(len(kinds))], "and none of the last, which is L1's"
        ends = {r.item: r.a for r in log if r.kind == rig.END}
        for n, step in enumerate(steps[:-1]):
            assert ends[100 + n] == (step.gpa ^ NONCE if step.write else CONTENT + n)
            assert guest.u64(step.gpa + 8) == (step.gpa ^ NONCE if step.write else 0)
        assert ends[100 + len(kinds)] == CONTENT


def test_two_vcpus_have_an_l2_each(probe_elf: Path, tmp_path: Path) -> None:
    steps = [Step(rig.TOUCH, vcpu=n % 2, gpa=POOL + 4096 * n, flags=INTERRUPTS | LEVEL2) for n in range(8)]
    items = encode_items(steps, vcpus=2, flags=FLAGS, l2=SOUND)
    with start_guest(probe_elf, tmp_path, items, vcpus=2) as guest:
        guest.wait_state(rig.READY)
        for n in range(8):
            guest.put64(POOL + 4096 * n, CONTENT + n)
        guest.run()
        for vcpu in (0, 1):
            log = guest.log(vcpu)
            assert exits(log) == [(100 + n, VMMCALL) for n in range(vcpu, 8, 2)]
            assert [r.a for r in log if r.kind == rig.END] == [CONTENT + n for n in range(vcpu, 8, 2)]


def test_an_event_injected_at_vmrun_is_taken_by_the_l2(probe_elf: Path, tmp_path: Path) -> None:
    steps = [Step(rig.TOUCH, gpa=POOL, flags=INTERRUPTS | LEVEL2)]
    with start_guest(probe_elf, tmp_path, encode_items(steps, flags=FLAGS, l2=SOUND | rig.INJECT)) as guest:
        guest.wait_state(rig.READY)
        log = guest.run()
        (taken,) = (r for r in log if r.kind == rig.IRQ)
        assert taken.a == 0xFF
        assert log.index(taken) < next(n for n, r in enumerate(log) if r.kind == rig.L2_EXIT)
        assert exits(log) == [(100, VMMCALL)]


@pytest.mark.parametrize("intercepted", [True, False])
def test_a_virtual_interrupt(probe_elf: Path, tmp_path: Path, intercepted: bool) -> None:
    l2 = SOUND | rig.VIRQ | (rig.INTERCEPT_VINTR if intercepted else 0)
    steps = [Step(rig.TOUCH, gpa=POOL, flags=INTERRUPTS | LEVEL2)]
    with start_guest(probe_elf, tmp_path, encode_items(steps, flags=FLAGS, l2=l2)) as guest:
        guest.wait_state(rig.READY)
        log = guest.run()
        assert exits(log) == [(100, VINTR)] * intercepted + [(100, VMMCALL)]
        assert [r.a for r in log if r.kind == rig.IRQ] == [0xFF] * (not intercepted)


def test_interrupts_of_the_l1_end_its_l2(probe_elf: Path, tmp_path: Path) -> None:
    """A timer of 50 us while some hundred L2 run: QEMU ends at least one of them by it, and each of them ends well."""
    steps = [Step(rig.TIMER, value=50)]
    steps += [Step(rig.TOUCH, gpa=POOL + 4096 * n, flags=INTERRUPTS | LEVEL2) for n in range(400)]
    steps += [Step(rig.TIMER, value=0)]
    with start_guest(probe_elf, tmp_path, encode_items(steps, flags=FLAGS, l2=SOUND)) as guest:
        guest.wait_state(rig.READY)
        log = guest.run()
        found = exits(log)
        assert {code for _, code in found} <= {INTR, VMMCALL}
        assert [item for item, code in found if code == VMMCALL] == [101 + n for n in range(400)]


def test_a_page_fault_of_the_guests_own(probe_elf: Path, tmp_path: Path) -> None:
    steps = [Step(rig.PAGE_FAULT), Step(rig.TOUCH, gpa=POOL)]
    with start_guest(probe_elf, tmp_path, encode_items(steps)) as guest:
        guest.wait_state(rig.READY)
        guest.ram[0x801000:0x801004] = (5).to_bytes(4, "little")
        log = guest.run()
        (fault,) = (r for r in log if r.kind == rig.PAGE_FAULT_REC)
        assert (fault.item, fault.a, fault.b) == (100, 0x123456000, 5)
        assert guest.u32(0x801000) == 5, "the flags are looked at, not cleared"
        assert [r.item for r in log if r.kind == rig.END] == [100, 101]


def test_a_fault_in_the_l2_that_nothing_explains_is_a_panic(probe_elf: Path, tmp_path: Path) -> None:
    steps = [Step(rig.TOUCH, gpa=0x123456000, flags=INTERRUPTS | LEVEL2)]
    with start_guest(probe_elf, tmp_path, encode_items(steps, flags=FLAGS, l2=SOUND)) as guest:
        guest.wait_state(rig.READY)
        guest.go()
        with pytest.raises(AssertionError, match="unexpected exception"):
            guest.wait_state(rig.DONE)
        fault, cr2 = guest.log()[-2:]
        assert (fault.kind, fault.item, fault.a & 0xFFFFFFFF, cr2.a) == (rig.FAULT, 100, 14, 0x123456000)
