# SPDX-License-Identifier: GPL-2.0-or-later
"""The items file: the probe guest's program, from a plan and back (docs/formats/probe.md section 3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.contract.plan import L2, Apf, Guest, HostWord, Item, Plan, says, vcpu_ids
from harness.contract.probe_abi import (
    ITEM,
    ITEMS_HEADER,
    ITEMS_MAGIC,
    ITEMS_VERSION,
    MASK64,
    MAX_ITEMS,
    MAX_VCPUS,
    OWN_AREA,
    HeaderFlag,
    ItemFlag,
    L2Flag,
    whole,
)
from harness.contract.words import Access, By, Op
from harness.errors import CaptureDamaged, UsageError

F = TypeVar("F", HeaderFlag, ItemFlag, L2Flag)
_HEADER = whole(ITEMS_HEADER)
_ITEM = whole(ITEM)
_OPS = {op.number: op for op in Op}
_ACCESSES = {access.number: access for access in Access}
_BY = {by.number: by for by in By}


@dataclass(frozen=True, slots=True)
class Program:
    """What an items file says.  Items have no ``page``: that name is for people only."""

    nonce: int
    vcpus: int
    apic_ids: tuple[int, ...]
    idle: str
    apf: Apf
    items: tuple[Item, ...]
    l2: L2 | None = None  # where no item runs in one
    nmis: bool = False  # NMIs come, and are taken


def encode_items(plan: Plan) -> bytes:
    """The items file of a plan for the probe guest.

    :raise UsageError: a value does not fit its field.
    """
    apf = plan.guest.apf
    flags = HeaderFlag.LAPIC_BEFORE_EN if apf.lapic_enabled else HeaderFlag.LAPIC_AFTER_EN
    flags |= HeaderFlag.APF_ZERO_TOKEN * apf.zero_token | HeaderFlag.APF_ACK * apf.ack
    flags |= HeaderFlag.APF_ACK_FIRST * apf.ack_first | HeaderFlag.IDLE_HLT * (plan.guest.idle == "hlt")
    nested = any(item.level == 2 for item in plan.items)
    flags |= HeaderFlag.L2_GUEST * nested | HeaderFlag.TAKES_NMIS * says(plan, HostWord.NMI)
    en_gpa = OWN_AREA if apf.en_gpa == -1 else apf.en_gpa
    header = _pack(
        _HEADER, "header", ITEMS_MAGIC, plan.nonce, ITEMS_VERSION, plan.guest.vcpus, len(plan.items), int(flags),
        apf.en_flags, en_gpa, apf.vector, int(_l2_flags(plan.guest.l2)) if nested else 0,
        _id_bits(vcpu_ids(plan.guest)),
    )  # fmt: skip
    return header + b"".join(_encode_item(item) for item in plan.items)


_L2_FLAGS = {
    "npt": L2Flag.NPT, "intercept_pf": L2Flag.INTERCEPT_PF, "intercept_intr": L2Flag.INTERCEPT_INTR,
    "intercept_vintr": L2Flag.INTERCEPT_VINTR, "intr_masking": L2Flag.INTR_MASKING,
    "l1_interrupts": L2Flag.L1_INTERRUPTS, "inject": L2Flag.INJECT, "virq": L2Flag.VIRQ,
    "moved": L2Flag.MOVED,
}  # fmt: skip


def _id_bits(ids: tuple[int, ...]) -> int:
    """0 where they have no gaps."""
    return sum(1 << each for each in ids) if ids != tuple(range(len(ids))) else 0


def _ids(bits: int, vcpus: int) -> tuple[int, ...]:
    """The inverse of _id_bits: the cores of a socket are as many as ids come before the first gap.

    :raise CaptureDamaged: no sockets make these of so many vCPUs.
    """
    if not bits:
        return tuple(range(vcpus))
    ids = vcpu_ids(Guest(vcpus=vcpus, cores=(~bits & bits + 1).bit_length() - 1))
    if _id_bits(ids) != bits:
        raise CaptureDamaged(f"items file: {bits:#x} are not the APIC ids of {vcpus} vCPUs")
    return ids


def _l2_flags(l2: L2) -> L2Flag:
    found = L2Flag(0)
    for name, flag in _L2_FLAGS.items():
        found |= flag * getattr(l2, name)
    return found


def _encode_item(item: Item) -> bytes:
    flags = ItemFlag.INTERRUPTS * item.interrupts | ItemFlag.SHADOW * item.shadow
    flags |= ItemFlag.NO_PAGING * item.no_paging | ItemFlag.WAIT * item.wait | ItemFlag.LEVEL2 * (item.level == 2)
    flags |= ItemFlag.GIF_CLEAR * (not item.gif) | ItemFlag.TPR * item.tpr
    flags |= ItemFlag.IN_SERVICE * item.in_service
    return _pack(
        _ITEM, f"item {item.index}", item.index, item.op.number, item.vcpu, item.access.number, item.cpl, int(flags),
        item.msr, item.gpa, item.value & MASK64, item.pause_us, item.by.number,
    )  # fmt: skip


def _pack(codec: struct.Struct, what: str, *values: int) -> bytes:
    try:
        return codec.pack(*values)
    except struct.error as exc:
        raise UsageError(f"{what}: {exc}") from None


def decode_items(data: bytes) -> Program:
    """The inverse of encode_items: an item's value as an unsigned number of 64 bits, its ``page`` empty.

    :raise CaptureDamaged: no items file of a version that is known here, or one that encode_items cannot have made.
    """
    if len(data) < _HEADER.size:
        raise CaptureDamaged(f"items file: {len(data)} bytes, its header has {_HEADER.size}")
    found = _unpack(_HEADER, data, 0, "header")
    magic, nonce, version, vcpus, count, flags, en_flags, en_gpa, vector, l2, id_bits = found
    if magic != ITEMS_MAGIC or version != ITEMS_VERSION:
        raise CaptureDamaged(f"items file: magic {magic:#x}, version {version}: not a program of this version")
    if not 1 <= vcpus <= MAX_VCPUS or count > MAX_ITEMS:
        raise CaptureDamaged(f"items file: {vcpus} vCPUs, {count} items: too many or none")
    want = _HEADER.size + count * _ITEM.size
    if len(data) != want:
        raise CaptureDamaged(f"items file: {len(data)} bytes, but {count} items need {want}")
    known = _flags(HeaderFlag, flags, "header")
    lapic = known & (HeaderFlag.LAPIC_BEFORE_EN | HeaderFlag.LAPIC_AFTER_EN)
    if lapic not in (HeaderFlag.LAPIC_BEFORE_EN, HeaderFlag.LAPIC_AFTER_EN):
        raise CaptureDamaged(
            f"items file: header: the LAPIC is enabled once, before or after EN, not by flags {flags:#x}"
        )
    apf = Apf(
        en_flags=en_flags,
        vector=vector,
        en_gpa=-1 if en_gpa == OWN_AREA else en_gpa,
        lapic_enabled=lapic is HeaderFlag.LAPIC_BEFORE_EN,
        zero_token=HeaderFlag.APF_ZERO_TOKEN in known,
        ack=HeaderFlag.APF_ACK in known,
        ack_first=HeaderFlag.APF_ACK_FIRST in known,
    )
    items = tuple(_decode_item(data, _HEADER.size + n * _ITEM.size, n) for n in range(count))
    nested = HeaderFlag.L2_GUEST in known
    if nested != any(item.level == 2 for item in items) or (l2 and not nested):
        raise CaptureDamaged("items file: header: it says of an L2 what the items do not")
    how = _flags(L2Flag, l2, "header")
    return Program(
        nonce, vcpus, _ids(id_bits, vcpus), "hlt" if HeaderFlag.IDLE_HLT in known else "spin", apf, items,
        L2(**{name: flag in how for name, flag in _L2_FLAGS.items()}) if nested else None,
        HeaderFlag.TAKES_NMIS in known,
    )  # fmt: skip


def _decode_item(data: bytes, offset: int, position: int) -> Item:
    what = f"item at position {position}"
    index, op, vcpu, access, cpl, flags, msr, gpa, value, pause_us, by = _unpack(_ITEM, data, offset, what)
    if op not in _OPS or access not in _ACCESSES or by not in _BY:
        raise CaptureDamaged(f"items file: {what}: unknown op {op}, access {access} or by {by}")
    known = _flags(ItemFlag, flags, what)
    return Item(
        index=index,
        op=_OPS[op],
        vcpu=vcpu,
        gpa=gpa,
        access=_ACCESSES[access],
        cpl=cpl,
        interrupts=ItemFlag.INTERRUPTS in known,
        shadow=ItemFlag.SHADOW in known,
        no_paging=ItemFlag.NO_PAGING in known,
        wait=ItemFlag.WAIT in known,
        level=2 if ItemFlag.LEVEL2 in known else 1,
        by=_BY[by],
        gif=ItemFlag.GIF_CLEAR not in known,
        tpr=ItemFlag.TPR in known,
        in_service=ItemFlag.IN_SERVICE in known,
        pause_us=pause_us,
        msr=msr,
        value=value,
    )


def _unpack(codec: struct.Struct, data: bytes, offset: int, what: str) -> tuple[Any, ...]:
    values = codec.unpack_from(data, offset)
    if codec.pack(*values) != data[offset : offset + codec.size]:
        raise CaptureDamaged(f"items file: {what}: reserved bytes are not zero")
    return values


def _flags(kind: type[F], raw: int, what: str) -> F:
    known = sum(kind)
    if raw & ~known:
        raise CaptureDamaged(f"items file: {what}: unknown flags {raw & ~known:#x}")
    return kind(raw)
