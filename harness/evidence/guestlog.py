# SPDX-License-Identifier: GPL-2.0-or-later
"""guest/log.bin -> the probe guest's control page and records (docs/formats/probe.md sections 2 and 4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from harness.contract.probe_abi import (
    CONTROL_PAGE,
    LEAF_BITS,
    MAX_VCPUS,
    NO_ITEM,
    PAGE_SIZE,
    RECORD_CODEC,
    RESETS_BITS,
    Record,
    decode_control,
)
from harness.errors import CaptureDamaged


@dataclass(frozen=True, slots=True)
class GuestRecord:
    """One record; ``item`` is -1 where the record belongs to none; a and b as docs/formats/probe.md section 4 says."""

    kind: Record
    tsc: int
    vcpu: int
    item: int
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class LoggedBoot:
    """What a record BOOT says in its b.  ``leaf``: a FeaturesLeaf, or a number that no guest writes; ``features``: EAX
    of that leaf, 0 without."""

    resets: int
    leaf: int
    features: int


def boot_of(record: GuestRecord) -> LoggedBoot:
    """``record``: of kind BOOT."""
    leaf = record.b >> RESETS_BITS
    return LoggedBoot(record.b % (1 << RESETS_BITS), leaf % (1 << LEAF_BITS), leaf >> LEAF_BITS)


@dataclass(frozen=True, slots=True)
class ProgramState:
    """``next``: position in the program from which a vCPU goes on; ``done``: how many of its items have ended."""

    next: int
    done: int


@dataclass(frozen=True, slots=True)
class GuestLog:
    """What the guest saw, per vCPU in its own order."""

    nonce: int
    state: int
    ended: bool  # the end mark with the nonce is there
    tsc_khz: int
    vcpus: tuple[tuple[GuestRecord, ...], ...]
    progress: tuple[ProgramState, ...] = ()  # of each vCPU
    ended_vcpus: int = 0
    host_entries: int = 0

    def all(self) -> tuple[GuestRecord, ...]:
        return tuple(e for log in self.vcpus for e in log)


def decode(data: bytes, vcpus: int) -> GuestLog:
    """:raise CaptureDamaged: too short, no magic, or a record that cannot be."""
    if len(data) < PAGE_SIZE:
        raise CaptureDamaged(f"guest/log.bin: {len(data)} bytes, a control page has {PAGE_SIZE}")
    if not 1 <= vcpus <= MAX_VCPUS:
        raise CaptureDamaged(f"guest/log.bin: a plan of {vcpus} vCPUs, the probe guest has 1 to {MAX_VCPUS}")
    control = decode_control(data, vcpus)
    if not control.is_valid:
        raise CaptureDamaged(f"guest/log.bin: magic {control.magic:#x} is not the probe guest's")
    counts = control.counts
    want = PAGE_SIZE + RECORD_CODEC.size * sum(counts)
    if len(data) != want:
        raise CaptureDamaged(f"guest/log.bin: {len(data)} bytes, but the counts {list(counts)} need {want}")
    logs, offset = [], PAGE_SIZE
    for vcpu, count in enumerate(counts):
        logs.append(tuple(_entry(data, offset + i * RECORD_CODEC.size, vcpu) for i in range(count)))
        offset += count * RECORD_CODEC.size
    return GuestLog(
        control.nonce, control.state, control.is_complete(control.nonce), control.tsc_khz, tuple(logs),
        _progress(data, vcpus), control.ended, control.host_entries,
    )  # fmt: skip


def _progress(data: bytes, vcpus: int) -> tuple[ProgramState, ...]:
    """:raise CaptureDamaged: something is in the page where nobody writes."""
    written = bytearray(data[:PAGE_SIZE])
    for member in CONTROL_PAGE.members:
        end = member.end if member.count == 1 else member.offset + 4 * vcpus
        written[member.offset : end] = bytes(end - member.offset)
    if any(written):
        where = next(n for n, byte in enumerate(written) if byte)
        raise CaptureDamaged(f"guest/log.bin: byte {where} of the control page is not 0, and nobody writes it")
    of_each = (struct.unpack_from(f"<{vcpus}I", data, CONTROL_PAGE.at(name).offset) for name in ("next", "done"))
    return tuple(ProgramState(*of_one) for of_one in zip(*of_each, strict=True))


def _entry(data: bytes, offset: int, vcpu: int) -> GuestRecord:
    tsc, kind, of, item, a, b = RECORD_CODEC.unpack_from(data, offset)
    try:
        record = Record(kind)
    except ValueError:
        raise CaptureDamaged(f"guest/log.bin: record at {offset:#x} has the unknown kind {kind}") from None
    if of != vcpu:
        raise CaptureDamaged(f"guest/log.bin: record at {offset:#x} of vCPU {of} stands in the log of vCPU {vcpu}")
    return GuestRecord(record, tsc, of, -1 if item == NO_ITEM else item, a, b)
