# SPDX-License-Identifier: GPL-2.0-or-later
"""The items file against a decoder written from docs/formats/probe.md section 3 alone, and against its own inverse."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.contract import plan as p
from harness.contract.program import Program, decode_items, encode_items
from harness.errors import CaptureDamaged, UsageError
from tests.unit.agent.conftest import make_plan

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
OPS = [
    "touch", "wrmsr", "lapic", "paging", "timer", "clear-token", "pause", "wait", "host", "reset", "page-fault", "init",
    "eject", "after",
]  # fmt: skip

items = st.builds(
    p.Item, index=u32, op=st.sampled_from(list(p.Op)), vcpu=st.integers(0, 15), gpa=u64,
    access=st.sampled_from(list(p.Access)), cpl=st.sampled_from([0, 3]), interrupts=st.booleans(), shadow=st.booleans(),
    no_paging=st.booleans(), wait=st.booleans(), pause_us=u32, msr=u32, value=u64, level=st.sampled_from([1, 2]),
    by=st.sampled_from(list(p.By)), gif=st.booleans(),
    tpr=st.booleans(), in_service=st.booleans(),
)  # fmt: skip
apfs = st.builds(
    p.Apf, en_flags=st.integers(0, 63), vector=st.integers(0, 255), en_gpa=st.one_of(st.just(-1), u64),
    lapic_enabled=st.booleans(), zero_token=st.booleans(), ack=st.booleans(), ack_first=st.booleans(),
)  # fmt: skip


def read(raw: bytes, offset: int, size: int) -> int:
    return int.from_bytes(raw[offset : offset + size], "little")


def decode_item(raw: bytes) -> p.Item:
    flags = read(raw, 8, 4)
    return p.Item(
        index=read(raw, 0, 4), op=p.Op(OPS[raw[4]]), vcpu=raw[5],
        access=p.Access("write" if raw[6] else "read"), cpl=raw[7],
        interrupts=bool(flags & 1), shadow=bool(flags & 2), no_paging=bool(flags & 4), wait=bool(flags & 8),
        level=2 if flags & 16 else 1, gif=not flags & 32, tpr=bool(flags & 64), in_service=bool(flags & 128),
        msr=read(raw, 12, 4), gpa=read(raw, 16, 8), value=read(raw, 24, 8), pause_us=read(raw, 32, 4),
        by=list(p.By)[raw[36]],
    )  # fmt: skip


@given(st.lists(items, max_size=5))
def test_items_come_back(program: list[p.Item]) -> None:
    raw = encode_items(replace(make_plan(pages=0), items=tuple(program)))
    assert len(raw) == 64 * (1 + len(program))
    assert read(raw, 20 + 4, 4) == len(program)
    assert [decode_item(raw[64 * n : 64 * n + 64]) for n in range(1, len(program) + 1)] == program
    for n in range(1, len(program) + 1):
        assert raw[64 * n + 37 : 64 * n + 64] == bytes(27)


@given(apfs, st.sampled_from(["hlt", "spin"]), u64, st.integers(1, 16))
def test_header(apf: p.Apf, idle: str, nonce: int, vcpus: int) -> None:
    plan = replace(make_plan(), nonce=nonce, guest=p.Guest(apf=apf, idle=idle, vcpus=vcpus))
    raw = encode_items(plan)
    assert raw[:8] == bytes.fromhex("4150464954454d31")[:8]
    assert (read(raw, 8, 8), read(raw, 16, 4), read(raw, 20, 4)) == (nonce, 1, vcpus)
    flags = [apf.zero_token, apf.ack, apf.ack_first, idle == "hlt", apf.lapic_enabled, not apf.lapic_enabled]
    assert read(raw, 28, 4) == sum(1 << bit for bit, on in enumerate(flags) if on)
    assert read(raw, 32, 8) == apf.en_flags
    assert read(raw, 40, 8) == (2**64 - 1 if apf.en_gpa == -1 else apf.en_gpa)
    assert read(raw, 48, 4) == apf.vector
    assert raw[52:64] == bytes(12)


def test_apic_ids_with_gaps_stand_in_the_header() -> None:
    plan = replace(make_plan(), guest=p.Guest(vcpus=5, cores=3))
    assert read(encode_items(plan), 56, 8) == 0b110111
    assert decode_items(encode_items(plan)).apic_ids == (0, 1, 2, 4, 5)
    assert read(encode_items(replace(plan, guest=p.Guest(vcpus=5, cores=2))), 56, 8) == 0, "they have none"


@given(st.builds(p.L2, *[st.booleans()] * 9))
def test_how_an_l2_is_run_stands_in_the_header(l2: p.L2) -> None:
    program = (p.Item(0, p.Op.TOUCH, level=2),)
    raw = encode_items(replace(make_plan(pages=0), guest=p.Guest(l2=l2), items=program))
    on = [
        l2.npt, l2.intercept_pf, l2.intercept_intr, l2.intercept_vintr, l2.intr_masking, l2.l1_interrupts, l2.inject,
        l2.virq, l2.moved,
    ]  # fmt: skip
    assert read(raw, 52, 4) == sum(1 << bit for bit, set_ in enumerate(on) if set_)
    assert read(raw, 28, 4) & 0x40
    assert decode_items(raw).l2 == l2


def test_what_does_not_fit_is_refused() -> None:
    program = (p.Item(0, p.Op.PAUSE, pause_us=2**32),)
    with pytest.raises(UsageError, match="item 0"):
        encode_items(replace(make_plan(pages=0), items=program))


@given(
    apfs, st.sampled_from(["hlt", "spin"]), u64, st.integers(1, 16), st.integers(0, 16),
    st.lists(items, max_size=5).map(tuple),
)  # fmt: skip
def test_round_trip(apf: p.Apf, idle: str, nonce: int, vcpus: int, cores: int, program: tuple[p.Item, ...]) -> None:
    guest = p.Guest(apf=apf, idle=idle, vcpus=vcpus, cores=cores)
    plan = replace(make_plan(), nonce=nonce, guest=guest, items=program)
    own = replace(apf, en_gpa=-1) if apf.en_gpa == 2**64 - 1 else apf
    l2 = p.L2() if any(item.level == 2 for item in program) else None
    assert decode_items(encode_items(plan)) == Program(nonce, vcpus, p.vcpu_ids(guest), idle, own, program, l2)


@given(st.binary(max_size=200))
def test_no_bytes_but_a_program_are_one(data: bytes) -> None:
    with pytest.raises(CaptureDamaged):
        decode_items(data)


@given(st.integers(0, 64 * 3 - 1), st.integers(0, 255))
@example(28, 144)  # NMIs come
def test_a_changed_byte_is_refused_or_says_what_it_says(at: int, byte: int) -> None:
    """What is accepted is what encode_items makes of it: nothing in the file is passed over."""
    plan = replace(make_plan(pages=0), items=(p.Item(0, p.Op.TOUCH), p.Item(1, p.Op.HOST)))
    raw = bytearray(encode_items(plan))
    raw[at] = byte
    try:
        found = decode_items(bytes(raw))
    except CaptureDamaged:
        return
    gap = next((n for n, apic_id in enumerate(found.apic_ids) if apic_id != n), 0)
    guest = p.Guest(apf=found.apf, idle=found.idle, vcpus=found.vcpus, cores=gap, l2=found.l2 or p.L2())
    acts = ((p.HostAction(p.HostWord.NMI),),) if found.nmis else ()
    same = replace(plan, nonce=found.nonce, guest=guest, items=found.items, host_actions=acts)
    assert encode_items(same) == raw


@pytest.mark.parametrize(
    ("at", "byte", "message"),
    [
        (0, 0, "magic"),
        (16, 2, "version 2"),
        (20, 0, "0 vCPUs"),
        (24, 3, "need 256"),
        (28, 0x30, "enabled once"),
        (28, 0x00, "enabled once"),
        (29, 0x01, "unknown flags 0x100"),
        (28, 0x50, "says of an L2"),
        (52, 1, "says of an L2"),
        (56, 1, "0x1 are not the APIC ids of 1 vCPUs"),
        (56, 2, "0x2 are not the APIC ids of 1 vCPUs"),
        (64 + 4, len(OPS), f"unknown op {len(OPS)}"),
        (64 + 6, 2, "access 2"),
        (64 + 8, 16, "says of an L2"),
        (64 + 9, 1, "unknown flags 0x100"),
        (64 + 36, 5, "item at position 0: unknown op 0, access 0 or by 5"),
        (64 + 37, 1, "item at position 0: reserved"),
    ],
)
def test_named_damage(at: int, byte: int, message: str) -> None:
    raw = bytearray(encode_items(replace(make_plan(pages=0), items=(p.Item(0, p.Op.TOUCH), p.Item(1, p.Op.HOST)))))
    raw[at] = byte
    with pytest.raises(CaptureDamaged, match=message):
        decode_items(bytes(raw))


@pytest.mark.parametrize("count", range(0, 192, 7))
def test_a_cut_file_is_refused(count: int) -> None:
    raw = encode_items(replace(make_plan(pages=0), items=(p.Item(0, p.Op.TOUCH), p.Item(1, p.Op.HOST))))
    with pytest.raises(CaptureDamaged):
        decode_items(raw[:count])
