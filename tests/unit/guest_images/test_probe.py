# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe guest without async page faults: what it logs for each op, under plain QEMU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.contract.probe_abi import RESETS_BITS, FeaturesLeaf
from tests.unit.guest_images import probe_rig as rig
from tests.unit.guest_images.probe_rig import (
    INTERRUPTS,
    NO_PAGING,
    NONCE,
    POOL,
    SHADOW,
    Record,
    Step,
    encode_items,
    start_guest,
)

CONTENT = 0x0123456789ABCDEF


def pairs(log: list[Record]) -> list[tuple[int, int, int, int]]:
    """START and END records as (kind, item, a, b)."""
    return [(r.kind, r.item, r.a, r.b) for r in log if r.kind in (rig.START, rig.END)]


def irqs_inside(log: list[Record], item: int) -> list[Record]:
    start = next(n for n, r in enumerate(log) if (r.kind, r.item) == (rig.START, item))
    end = next(n for n, r in enumerate(log) if (r.kind, r.item) == (rig.END, item))
    return [r for r in log[start:end] if r.kind == rig.IRQ]


@pytest.mark.parametrize("machine", ["microvm", "q35"])
def test_touches_of_every_kind_are_logged_in_order(probe_elf: Path, tmp_path: Path, machine: str) -> None:
    kinds = [
        (cpl, flags, write)
        for cpl in (3, 0)
        for flags in (INTERRUPTS, 0, SHADOW | INTERRUPTS)
        for write in (False, True)
    ]
    kinds += [(0, rig.GIF_CLEAR, write) for write in (False, True)]
    kinds += [(0, NO_PAGING | flags, write) for flags in (0, INTERRUPTS, SHADOW) for write in (False, True)]
    steps = [
        Step(rig.TOUCH, gpa=POOL + 4096 * n, cpl=cpl, flags=flags, write=write)
        for n, (cpl, flags, write) in enumerate(kinds)
    ]
    with start_guest(probe_elf, tmp_path, encode_items(steps), machine=machine) as guest:
        guest.wait_state(rig.READY)
        assert guest.u64(rig.CONTROL) == int.from_bytes(b"AFPROBP1", "little")
        assert guest.u64(rig.CONTROL + 8) == NONCE
        assert guest.u64(rig.CONTROL + 40) > 100_000, "TSC frequency in kHz"
        for n in range(len(steps)):
            guest.put64(POOL + 4096 * n, CONTENT + n)
        log = guest.run()
        expected = []
        for n, step in enumerate(steps):
            expected.append((rig.START, 100 + n, step.gpa, 0))
            expected.append((rig.END, 100 + n, step.gpa ^ NONCE if step.write else CONTENT + n, 0))
            assert guest.u64(step.gpa + 8) == (step.gpa ^ NONCE if step.write else 0)
            assert guest.u64(step.gpa) == CONTENT + n
        assert pairs(log) == expected
        assert (log[0].kind, log[0].a) == (rig.BOOT, 0)
        assert log[0].b == FeaturesLeaf.NONE << RESETS_BITS  # CPUID names TCG
        assert (log[-1].kind, log[-1].a, log[-1].b) == (rig.DONE_REC, NONCE, len(steps))
        assert [r.tsc for r in log] == sorted(r.tsc for r in log)
        assert guest.u32(rig.CONTROL + 28) == 1


@pytest.mark.parametrize("machine", ["microvm", "q35"])
@pytest.mark.parametrize("where", ["pause", "no-paging"])
def test_timer_interrupts_come_back_to_what_they_interrupted(
    probe_elf: Path, tmp_path: Path, machine: str, where: str
) -> None:
    busy = Step(rig.PAUSE, pause_us=300_000) if where == "pause" else Step(rig.PAGING, value=0, pause_us=300_000)
    steps = [Step(rig.TIMER, value=1000), busy, Step(rig.TIMER, value=0), Step(rig.PAUSE, pause_us=5_000)]
    with start_guest(probe_elf, tmp_path, encode_items(steps), machine=machine) as guest:
        guest.wait_state(rig.READY)
        log = guest.run()
        ticks = irqs_inside(log, 101)
        assert 290 <= len(ticks) <= 300, "300 ms of a 1 ms timer"
        assert {r.a for r in ticks} == {0x40}
        assert all(0x100000 <= r.b < 0x800000 for r in ticks), "interrupted RIP lies in the image"
        assert irqs_inside(log, 103) == [], "the timer was stopped"


@pytest.mark.parametrize("flags", [0, rig.TPR, rig.IN_SERVICE])
def test_interrupts_off_holds_them_back(probe_elf: Path, tmp_path: Path, flags: int) -> None:
    held, open_ = Step(rig.PAUSE, pause_us=10_000, flags=flags), Step(rig.PAUSE, pause_us=300_000)
    with start_guest(probe_elf, tmp_path, encode_items([Step(rig.TIMER, value=1000), held, open_])) as guest:
        guest.wait_state(rig.READY)
        log = guest.run()
        assert irqs_inside(log, 101) == []
        end = next(n for n, r in enumerate(log) if (r.kind, r.item) == (rig.END, 101))
        # In the window before the next item, or in it.
        assert any(r.kind == rig.IRQ for r in log[end + 1 :])


@pytest.mark.parametrize("flags", [0, INTERRUPTS])
@pytest.mark.parametrize("op", [rig.WRMSR, rig.LAPIC])
def test_a_write_of_an_msr_without_interrupts_comes_before_what_waits(
    probe_elf: Path, tmp_path: Path, op: int, flags: int
) -> None:
    held = Step(rig.PAUSE, pause_us=100_000, flags=0)
    steps = [Step(rig.TIMER, value=1000), held, Step(op, msr=0xC0000103, value=1, flags=flags)]
    with start_guest(probe_elf, tmp_path, encode_items([*steps, Step(rig.PAUSE, pause_us=1)])) as guest:
        guest.wait_state(rig.READY)
        log = guest.run()
        paused, wrote = (log.index(next(r for r in log if (r.kind, r.item) == (rig.END, i))) for i in (101, 102))
        assert any(r.kind == rig.IRQ for r in log[paused:wrote]) is bool(flags)
        assert any(r.kind == rig.IRQ for r in log[wrote:]) or flags


def test_an_interrupt_of_low_priority_in_service_holds_none_back(probe_elf: Path, tmp_path: Path) -> None:
    """Nor does it for good: its EOI comes behind the item, and what is nested in it has EOIs of its own."""
    flags = rig.INTERRUPTS | rig.IN_SERVICE
    held, again = (Step(rig.PAUSE, pause_us=200_000, flags=flags) for _ in range(2))
    steps = [Step(rig.TIMER, value=1000), held, again, Step(rig.TIMER, value=0), Step(rig.PAUSE, pause_us=5_000)]
    with start_guest(probe_elf, tmp_path, encode_items(steps)) as guest:
        guest.wait_state(rig.READY)
        log = guest.run()
        assert len(irqs_inside(log, 101)) >= 2 and len(irqs_inside(log, 102)) >= 2


def panicked(probe_elf: Path, tmp_path: Path, touch: Step) -> list[rig.Record]:
    """The last two records, FAULT and CR2, of a guest whose touch is of no page."""
    with start_guest(probe_elf, tmp_path, encode_items([touch])) as guest:
        guest.wait_state(rig.READY)
        guest.go()
        with pytest.raises(AssertionError, match="PANIC"):
            guest.wait_state(rig.DONE)
        return guest.log()[-2:]


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize("flags", [0, INTERRUPTS, SHADOW, SHADOW | INTERRUPTS])
def test_the_access_runs_as_the_item_says(probe_elf: Path, tmp_path: Path, cpl: int, flags: int, write: bool) -> None:
    """The page is not mapped, so the fault tells CPL, read or write, RFLAGS.IF, and where the access is."""
    touch = Step(rig.TOUCH, gpa=0x100000000, cpl=cpl, flags=flags, write=write)
    fault, cr2 = panicked(probe_elf, tmp_path, touch)
    assert (fault.kind, fault.item, fault.a & 0xFFFFFFFF) == (rig.FAULT, 100, 14)
    assert fault.a >> 32 == (4 if cpl else 0) | (2 if write else 0), "bit 2 of the error code: CPL 3; bit 1: write"
    assert (cr2.kind, cr2.a) == (rig.CR2, 0x100000008 if write else 0x100000000)
    assert bool(cr2.b & 0x200) == bool(flags), "RFLAGS.IF"
    before = probe_elf.read_bytes()[0x1000 + fault.b - 0x100000 - 1]
    assert (before == 0xFB) == bool(flags & SHADOW), "the instruction before the access is STI"


@pytest.mark.parametrize("write", [False, True])
def test_gif_is_cleared_for_an_access_with_if_set(probe_elf: Path, tmp_path: Path, write: bool) -> None:
    touch = Step(rig.TOUCH, gpa=0x100000000, cpl=0, flags=rig.GIF_CLEAR, write=write)
    fault, cr2 = panicked(probe_elf, tmp_path, touch)
    assert cr2.b & 0x200, "RFLAGS.IF"
    access = 0x1000 + fault.b - 0x100000
    assert probe_elf.read_bytes()[access - 5 : access] == b"\x0f\x01\xdd\xfb\x90", "CLGI, STI, and its shadow"


def test_unmapped_touch_is_a_fault_and_a_panic(probe_elf: Path, tmp_path: Path) -> None:
    address = 0x1_2345_6000
    steps = [Step(rig.TOUCH, gpa=POOL), Step(rig.TOUCH, gpa=address, write=True), Step(rig.TOUCH, gpa=POOL)]
    with start_guest(probe_elf, tmp_path, encode_items(steps)) as guest:
        guest.wait_state(rig.READY)
        guest.go()
        with pytest.raises(AssertionError, match="unexpected exception"):
            guest.wait_state(rig.DONE)
        fault, cr2 = guest.log()[-2:]
        assert (fault.kind, fault.item, fault.a) == (rig.FAULT, 101, 14 | 6 << 32)
        assert (cr2.kind, cr2.item, cr2.a) == (rig.CR2, 101, address + 8)
        assert guest.u64(rig.CONTROL + 32) == 0, "no end mark"


def test_paging_off_and_on_again(probe_elf: Path, tmp_path: Path) -> None:
    steps = [Step(rig.TOUCH, gpa=POOL), Step(rig.PAGING, value=1), Step(rig.TOUCH, gpa=POOL + 4096)]
    with start_guest(probe_elf, tmp_path, encode_items(steps)) as guest:
        guest.wait_state(rig.READY)
        log = guest.run()
        assert [p[:2] for p in pairs(log)] == [(k, 100 + n) for n in range(3) for k in (rig.START, rig.END)]


def test_host_items_hand_over(probe_elf: Path, tmp_path: Path) -> None:
    steps = [
        Step(rig.TOUCH, gpa=POOL),
        Step(rig.HOST_OP, value=7),
        Step(rig.TOUCH, gpa=POOL),
        Step(rig.HOST_OP, value=3),
        Step(rig.TOUCH, gpa=POOL),
    ]
    with start_guest(probe_elf, tmp_path, encode_items(steps)) as guest:
        guest.wait_state(rig.READY)
        guest.put64(POOL, 1)
        guest.go()
        for entry, index in ((1, 7), (2, 3)):
            assert guest.wait_host(entry) == index
            guest.put64(POOL, entry + 1)
            guest.go()
        guest.wait_state(rig.DONE)
        log = guest.log()
        assert [r.a for r in log if r.kind == rig.END and r.item % 2 == 0] == [1, 2, 3]
        stages = [(r.item, r.a, r.b) for r in log if r.kind == rig.STAGE]
        assert stages == [(101, 7, 0), (101, 7, 1), (103, 3, 0), (103, 3, 1)]


def test_msr_that_faults_is_recorded(probe_elf: Path, tmp_path: Path) -> None:
    """A reserved bit of IA32_PKRS raises #GP in QEMU; IA32_TSC_AUX takes the value."""
    steps = [
        Step(rig.WRMSR, msr=0x6E1, value=1 << 32),
        Step(rig.WRMSR, msr=0xC0000103, value=0x1234),
        Step(rig.TOUCH, gpa=POOL),
    ]
    with start_guest(probe_elf, tmp_path, encode_items(steps)) as guest:
        guest.wait_state(rig.READY)
        log = guest.run()
        ends = {r.item: (r.a, r.b) for r in log if r.kind == rig.END}
        assert ends == {100: (1 << 32, 13), 101: (0x1234, 0), 102: (0, 0)}
        assert [(r.item, r.a, r.b) for r in log if r.kind == rig.MSR and r.item == 101] == [(101, 0xC0000103, 0x1234)]


def test_waits_pauses_lapic_and_token_word(probe_elf: Path, tmp_path: Path) -> None:
    steps = [
        Step(rig.TOUCH, gpa=POOL, pause_us=30_000),
        Step(rig.WAIT),
        Step(rig.CLEAR_TOKEN),
        Step(rig.TIMER, value=1000),
        Step(rig.LAPIC, value=0),
        Step(rig.PAUSE, pause_us=10_000),
        Step(rig.LAPIC, value=1),
        Step(rig.PAUSE, pause_us=300_000),
    ]
    with start_guest(probe_elf, tmp_path, encode_items(steps)) as guest:
        guest.wait_state(rig.READY)
        guest.put64(0x801000, 0x5555_0000_0000_0000)
        log = guest.run()
        assert guest.u64(0x801000) == 0, "the token word is the upper half"
        khz = guest.u64(rig.CONTROL + 40)
        assert log[1].tsc - log[0].tsc >= 30 * khz
        assert irqs_inside(log, 105) == [], "a disabled APIC delivers nothing"
        assert irqs_inside(log, 107), "and its timer runs again afterwards"


def test_four_vcpus_have_their_own_programs(probe_elf: Path, tmp_path: Path) -> None:
    steps = [Step(rig.TOUCH, vcpu=n % 4, gpa=POOL + 4096 * n, cpl=3 * (n % 2)) for n in range(40)]
    with start_guest(probe_elf, tmp_path, encode_items(steps, vcpus=4), vcpus=4) as guest:
        guest.wait_state(rig.READY)
        for n in range(40):
            guest.put64(POOL + 4096 * n, n)
        guest.run()
        for vcpu in range(4):
            log = guest.log(vcpu)
            assert {r.vcpu for r in log} == {vcpu}
            assert log[0].kind == rig.BOOT and log[0].a == vcpu
            assert [(r.item, r.a) for r in log if r.kind == rig.END] == [(100 + n, n) for n in range(vcpu, 40, 4)]
            assert (log[-1].kind, log[-1].b) == (rig.DONE_REC, 10)
        assert guest.u32(rig.CONTROL + 28) == 4


@pytest.mark.parametrize("machine", ["microvm", "q35"])
def test_vcpus_whose_apic_ids_have_gaps(probe_elf: Path, tmp_path: Path, machine: str) -> None:
    """Three sockets of three cores; two beyond a gap, which have no item that could be cut off, are given an INIT."""
    ids = (0, 1, 2, 4, 5, 6, 8)
    steps = [Step(rig.TOUCH, vcpu=n, gpa=POOL + 4096 * n) for n in (0, 1, 2, 4, 5)]
    steps += [Step(rig.INIT, value=3), Step(rig.INIT, value=6)]
    bits = sum(1 << apic_id for apic_id in ids)
    items, smp = encode_items(steps, vcpus=7, apic_ids=bits), "7,sockets=3,cores=3,threads=1,maxcpus=9"
    with start_guest(probe_elf, tmp_path, items, machine=machine, vcpus=smp) as guest:
        guest.wait_state(rig.READY)
        guest.run()
        for vcpu, apic_id in enumerate(ids):
            log = guest.log(vcpu)
            assert {r.vcpu for r in log} == {vcpu}
            assert [r.a for r in log if r.kind == rig.BOOT] == [apic_id] * (2 if vcpu in (3, 6) else 1)
            own = [100 + n for n, step in enumerate(steps) if step.vcpu == vcpu]
            assert [r.item for r in log if r.kind == rig.END] == own


def test_a_vcpu_that_had_ended_before_its_init_is_counted_once(probe_elf: Path, tmp_path: Path) -> None:
    """The program is over when the first vCPU has ended, too."""
    steps = [Step(rig.HOST_OP), Step(rig.INIT, value=1), Step(rig.HOST_OP)]
    with start_guest(probe_elf, tmp_path, encode_items(steps, vcpus=2), vcpus=2) as guest:
        guest.wait_state(rig.READY)
        guest.go()
        guest.wait_host(1)
        guest.wait_log(rig.DONE_REC, 1, vcpu=1)
        guest.go()
        guest.wait_host(2)
        guest.wait_log(rig.DONE_REC, 2, vcpu=1)
        assert guest.u32(rig.CONTROL + 16) == rig.HOST, "vCPU 1 had ended before its INIT, and ends again"
        guest.run()
        assert [[r.kind for r in guest.log(vcpu)].count(rig.DONE_REC) for vcpu in range(2)] == [1, 2]


def test_a_wait_that_had_ended_before_its_init_does_not_end_again(probe_elf: Path, tmp_path: Path) -> None:
    """It is the last item of its vCPU: no later one has said that the program has come past it."""
    steps = [Step(rig.HOST_OP), Step(rig.INIT, value=1), Step(rig.WAIT, vcpu=1)]
    with start_guest(probe_elf, tmp_path, encode_items(steps, vcpus=2), vcpus=2) as guest:
        guest.wait_state(rig.READY)
        guest.go()
        guest.wait_host(1)
        guest.wait_log(rig.END, 1, vcpu=1)
        guest.run()
        log = [(r.kind, r.item) for r in guest.log(1) if r.kind in (rig.BOOT, rig.START, rig.END)]
        assert log == [(rig.BOOT, rig.NONE), (rig.START, 102), (rig.END, 102), (rig.BOOT, rig.NONE)]


def test_an_item_that_an_init_keeps_from_its_record_is_begun_in_the_next_life(probe_elf: Path, tmp_path: Path) -> None:
    """S258 on a busy host: the vCPU had stepped to the item, and was given the INIT before it had logged that."""
    steps = [
        Step(rig.HOST_OP),
        Step(rig.INIT, value=1),
        Step(rig.PAUSE, vcpu=1, pause_us=60_000_000),
        Step(rig.CLEAR_TOKEN, vcpu=1),
    ]
    with start_guest(probe_elf, tmp_path, encode_items(steps, vcpus=2), vcpus=2) as guest:
        guest.wait_state(rig.READY)
        guest.go()
        guest.wait_host(1)
        guest.wait_log(rig.START, 1, vcpu=1)
        guest.put32(rig.CONTROL + 528 + 4, len(steps))  # control page: next[1]
        guest.run()
        log = [(r.kind, r.item) for r in guest.log(1) if r.kind in (rig.BOOT, rig.START, rig.END)]
        assert log[-3:] == [(rig.BOOT, rig.NONE), (rig.START, 103), (rig.END, 103)]


def test_an_init_is_over_when_the_vcpu_has_begun_anew(probe_elf: Path, tmp_path: Path) -> None:
    """The life before writes records for each of its many pauses until the INIT comes to it: none of them is taken
    for the next life's first."""
    steps = [Step(rig.INIT, value=1) for _ in range(24)]
    steps += [Step(rig.PAUSE, vcpu=1, pause_us=2) for _ in range(990)]
    with start_guest(probe_elf, tmp_path, encode_items(steps, vcpus=2), vcpus=2) as guest:
        guest.wait_state(rig.READY)
        guest.run()
        begun = [r.tsc for r in guest.log(1) if r.kind == rig.BOOT][1:]
        over = [r.tsc for r in guest.log(0) if r.kind == rig.END]
        assert len(begun) == len(over) == 24
        assert all(first < end for first, end in zip(begun, over, strict=True))


def test_reset_of_the_machine_continues_the_program(probe_elf: Path, tmp_path: Path) -> None:
    steps = [Step(rig.TOUCH, gpa=POOL), Step(rig.HOST_OP, value=0), Step(rig.TOUCH, gpa=POOL + 4096)]
    with start_guest(probe_elf, tmp_path, encode_items(steps), monitor=True) as guest:
        guest.wait_state(rig.READY)
        guest.go()
        guest.wait_state(rig.HOST)
        guest.monitor("system_reset")
        guest.wait_log(rig.BOOT, 2)
        guest.go()
        guest.wait_state(rig.DONE)
        log = guest.log()
        assert [r.b % (1 << RESETS_BITS) for r in log if r.kind == rig.BOOT] == [0, 1]
        assert [(r.kind, r.item) for r in log if r.kind in (rig.START, rig.STAGE, rig.END)] == [
            (rig.START, 100), (rig.END, 100), (rig.START, 101), (rig.STAGE, 101), (rig.STAGE, 101), (rig.END, 101),
            (rig.START, 102), (rig.END, 102),
        ]  # fmt: skip


def test_a_reset_by_the_guest_continues_the_program(probe_elf: Path, tmp_path: Path) -> None:
    """Of the other vCPU, too, which waits for what comes after the reset."""
    steps = [
        Step(rig.RESET, vcpu=1), Step(rig.TOUCH, vcpu=1, gpa=POOL),
        Step(rig.AFTER, value=0), Step(rig.TOUCH, gpa=POOL + 4096),
    ]  # fmt: skip
    with start_guest(probe_elf, tmp_path, encode_items(steps, vcpus=2), vcpus=2) as guest:
        guest.wait_state(rig.READY)
        guest.run()
        for vcpu, ends in ((0, [102, 103]), (1, [100, 101])):
            log = guest.log(vcpu)
            boots = [(r.b % (1 << RESETS_BITS), r.tsc) for r in log if r.kind == rig.BOOT]
            assert [b for b, _ in boots] == [0, 1]
            assert [(r.item, r.tsc > boots[1][1]) for r in log if r.kind == rig.END] == [(n, n != 100) for n in ends]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda items: b"\0" + items[1:], "bad magic"),
        (lambda items: items[:-64], "truncated"),
        (lambda items: items[:68] + b"\x63" + items[69:], "bad op"),
        (lambda items: items[:20] + b"\x63" + items[21:], "too many"),
    ],
)
def test_bad_items_file_is_named_on_the_console(probe_elf: Path, tmp_path: Path, spoil: object, message: str) -> None:
    assert callable(spoil)
    items = spoil(encode_items([Step(rig.TOUCH, gpa=POOL)]))
    with (
        start_guest(probe_elf, tmp_path, items) as guest,
        pytest.raises(AssertionError, match=f"PANIC: items file: .*{message}"),
    ):
        guest.wait_state(rig.READY)


def test_the_same_sources_give_the_same_bytes(probe_elf: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(rig.PROBE_SOURCE, copy, ignore=shutil.ignore_patterns("build"))
    subprocess.run(["make", "-C", str(copy), "OUT=out"], check=True, capture_output=True)
    assert (copy / "out" / "probe.elf").read_bytes() == probe_elf.read_bytes()
    assert str(tmp_path).encode() not in probe_elf.read_bytes()
