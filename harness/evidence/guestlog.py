# SPDX-License-Identifier: GPL-2.0-or-later
"""guest/log.bin -> the probe guest's control page and records (docs/formats.md sections 3 and 5)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from harness.errors import CaptureDamaged

MAGIC = 0x3150424F52504641
END_XOR = 0xA5A5A5A5A5A5A5A5
NO_ITEM = 0xFFFFFFFF
_RECORD = struct.Struct("<QHHIQQ")
_PAGE = 4096


class Record(IntEnum):
    BOOT = 1
    START = 2
    END = 3
    TOKEN = 4
    READY = 5
    IRQ = 6
    FAULT = 7
    CR2 = 8
    STAGE = 9
    MSR = 10
    WAKE = 11
    IDLE = 12
    DONE = 13


@dataclass(frozen=True, slots=True)
class Entry:
    """One record; ``item`` is -1 where the record belongs to none; a and b as docs/formats.md says."""

    kind: Record
    tsc: int
    vcpu: int
    item: int
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class GuestLog:
    """What the guest saw, per vCPU in its own order."""

    nonce: int
    state: int
    ended: bool  # the end mark with the nonce is there
    tsc_khz: int
    vcpus: tuple[tuple[Entry, ...], ...]

    def all(self) -> tuple[Entry, ...]:
        return tuple(e for log in self.vcpus for e in log)


def decode(data: bytes, vcpus: int) -> GuestLog:
    """:raise CaptureDamaged: too short, no magic, or a record that cannot be."""
    if len(data) < _PAGE:
        raise CaptureDamaged(f"guest/log.bin: {len(data)} bytes, a control page has {_PAGE}")
    magic, nonce, state, _go, _host, _ended, mark, khz = struct.unpack_from("<QQIIIIQQ", data)
    if magic != MAGIC:
        raise CaptureDamaged(f"guest/log.bin: magic {magic:#x} is not the probe guest's")
    counts = struct.unpack_from(f"<{vcpus}I", data, 64)
    want = _PAGE + _RECORD.size * sum(counts)
    if len(data) != want:
        raise CaptureDamaged(f"guest/log.bin: {len(data)} bytes, but the counts {list(counts)} need {want}")
    logs, offset = [], _PAGE
    for vcpu, count in enumerate(counts):
        logs.append(tuple(_entry(data, offset + i * _RECORD.size, vcpu) for i in range(count)))
        offset += count * _RECORD.size
    return GuestLog(nonce, state, mark == nonce ^ END_XOR, khz, tuple(logs))


def _entry(data: bytes, offset: int, vcpu: int) -> Entry:
    tsc, kind, of, item, a, b = _RECORD.unpack_from(data, offset)
    try:
        record = Record(kind)
    except ValueError:
        raise CaptureDamaged(f"guest/log.bin: record at {offset:#x} has the unknown kind {kind}") from None
    if of != vcpu:
        raise CaptureDamaged(f"guest/log.bin: record at {offset:#x} of vCPU {of} stands in the log of vCPU {vcpu}")
    return Entry(record, tsc, of, -1 if item == NO_ITEM else item, a, b)
