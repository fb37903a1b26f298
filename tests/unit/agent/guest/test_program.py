# SPDX-License-Identifier: GPL-2.0-or-later
"""The items file against a decoder written from docs/formats.md section 4 alone."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agent.guest.program import encode_items, page_content
from harness.contract import plan as p
from harness.errors import UsageError
from tests.unit.agent.conftest import make_plan

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
OPS = ["touch", "wrmsr", "lapic", "paging", "timer", "clear-token", "pause", "wait", "host"]

items = st.builds(
    p.Item, index=u32, op=st.sampled_from(list(p.Op)), vcpu=st.integers(0, 15), gpa=u64,
    access=st.sampled_from(list(p.Access)), cpl=st.sampled_from([0, 3]), interrupts=st.booleans(), shadow=st.booleans(),
    no_paging=st.booleans(), wait=st.booleans(), pause_us=u32, msr=u32, value=u64,
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
        msr=read(raw, 12, 4), gpa=read(raw, 16, 8), value=read(raw, 24, 8), pause_us=read(raw, 32, 4),
    )  # fmt: skip


@given(st.lists(items, max_size=5))
def test_items_come_back(program: list[p.Item]) -> None:
    raw = encode_items(replace(make_plan(pages=0), items=tuple(program)))
    assert len(raw) == 64 * (1 + len(program))
    assert read(raw, 20 + 4, 4) == len(program)
    assert [decode_item(raw[64 * n : 64 * n + 64]) for n in range(1, len(program) + 1)] == program
    for n in range(1, len(program) + 1):
        assert raw[64 * n + 36 : 64 * n + 64] == bytes(28)


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


def test_what_does_not_fit_is_refused() -> None:
    program = (p.Item(0, p.Op.PAUSE, pause_us=2**32),)
    with pytest.raises(UsageError, match="item 0"):
        encode_items(replace(make_plan(pages=0), items=program))


@given(u64, u64)
def test_page_content(gpa: int, nonce: int) -> None:
    content = page_content(gpa, nonce)
    assert len(content) == 4096
    assert struct.unpack_from("<Q", content)[0] == gpa ^ nonce ^ 0x5555555555555555
    assert len(zlib.compress(content, 9)) > 4000
    assert page_content(gpa, nonce) == content


def test_foldable_pages_keep_their_known_bytes_and_are_no_single_repeated_word() -> None:
    """zswap_is_page_same_filled (mm/zswap.c) must not see one word repeated, or it would store no compressed page."""
    folded, usual = page_content(0x1000000, 7, foldable=True), page_content(0x1000000, 7)
    assert folded[:8] == usual[:8] != bytes(8)
    assert len(folded) == 4096 and len(zlib.compress(folded)) < 100 < 4000 < len(zlib.compress(usual))
