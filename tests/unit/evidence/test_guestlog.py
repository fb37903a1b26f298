# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.probe_abi import CONTROL_PAGE, Record
from harness.errors import CaptureDamaged
from harness.evidence.guestlog import GuestRecord, decode

MAGIC, END_XOR = 0x3150424F52504641, 0xA5A5A5A5A5A5A5A5  # docs/formats/probe.md section 2
NONCE = 0x1234_5678_9ABC_DEF0
u64 = st.integers(0, 2**64 - 1)
entries = st.builds(GuestRecord, st.sampled_from(Record), u64, st.just(0), st.integers(-1, 1000), u64, u64)


def encode(logs: list[list[GuestRecord]], *, mark: int = NONCE ^ END_XOR, magic: int = MAGIC) -> bytes:
    page = bytearray(4096)
    struct.pack_into("<QQIIIIQQ", page, 0, magic, NONCE, 4, 1, 0, len(logs), mark, 2_000_000)
    for i, log in enumerate(logs):
        struct.pack_into("<I", page, 64 + 4 * i, len(log))
    body = b"".join(
        struct.pack("<QHHIQQ", e.tsc, e.kind, v, e.item & 0xFFFFFFFF, e.a, e.b)
        for v, log in enumerate(logs)
        for e in log
    )
    return bytes(page) + body


@given(st.lists(entries, max_size=20), st.lists(entries, max_size=20))
def test_records_come_back_per_vcpu_in_order(first: list[GuestRecord], second: list[GuestRecord]) -> None:
    log = decode(encode([first, second]), 2)
    assert log.ended and log.nonce == NONCE and log.tsc_khz == 2_000_000
    assert list(log.vcpus[0]) == first
    assert [(e.kind, e.item, e.a) for e in log.vcpus[1]] == [(e.kind, e.item, e.a) for e in second]
    assert all(e.vcpu == 1 for e in log.vcpus[1])


def test_without_the_end_mark_the_guest_has_not_ended() -> None:
    assert not decode(encode([[]], mark=0), 1).ended


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode([[]], magic=1),
        encode([[GuestRecord(Record.BOOT, 0, 0, -1, 0, 0)]])[:-1],
        encode([[]]) + b"x",
        encode([[]])[:-1] + b"x",  # where nobody writes
        encode([[GuestRecord(Record.BOOT, 0, 0, -1, 0, 0)]]).replace(
            struct.pack("<QHH", 0, 1, 0), struct.pack("<QHH", 0, 99, 0)
        ),
    ],
)
def test_damage(data: bytes) -> None:
    with pytest.raises(CaptureDamaged):
        decode(data, 1)


def test_vcpus_that_no_control_page_can_count() -> None:
    for vcpus in (-1, 0, 17, 2**40):
        with pytest.raises(CaptureDamaged, match="vCPUs"):
            decode(encode([[]]), vcpus)


@pytest.mark.parametrize("member", ["log_count", "next", "done"])
def test_a_vcpu_that_the_plan_has_not_has_done_nothing(member: str) -> None:
    page = bytearray(encode([[]]))
    struct.pack_into("<I", page, CONTROL_PAGE.at(member).offset + 4, 1)
    with pytest.raises(CaptureDamaged, match="nobody writes"):
        decode(bytes(page), 1)
