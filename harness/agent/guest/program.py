# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe guest's program from the plan: items file and page contents (docs/formats.md sections 4 and 6)."""

from __future__ import annotations

import hashlib
import struct

from harness.contract.plan import Access, Item, Op, Plan
from harness.errors import UsageError

ITEMS_MAGIC = 0x314D455449465041
ITEMS_VERSION = 1
HEADER = struct.Struct("<QQIIIIQQI12x")
ITEM = struct.Struct("<IBBBBIIQQI28x")
OWN_AREA = 0xFFFFFFFFFFFFFFFF
PAGE_KEY = 0x5555555555555555
MASK64 = 0xFFFFFFFFFFFFFFFF

_OP_NUMBER = {op: number for number, op in enumerate(Op)}


def encode_items(plan: Plan) -> bytes:
    """The items file of a plan for the probe guest.

    :raise UsageError: a value does not fit its field.
    """
    apf = plan.guest.apf
    flags = (
        apf.zero_token | apf.ack << 1 | apf.ack_first << 2 | (plan.guest.idle == "hlt") << 3
        | apf.lapic_enabled << 4 | (not apf.lapic_enabled) << 5
    )  # fmt: skip
    en_gpa = OWN_AREA if apf.en_gpa == -1 else apf.en_gpa
    header = HEADER.pack(
        ITEMS_MAGIC,
        plan.nonce,
        ITEMS_VERSION,
        plan.guest.vcpus,
        len(plan.items),
        flags,
        apf.en_flags,
        en_gpa,
        apf.vector,
    )
    return header + b"".join(_encode_item(item) for item in plan.items)


def _encode_item(item: Item) -> bytes:
    flags = item.interrupts | item.shadow << 1 | item.no_paging << 2 | item.wait << 3
    try:
        return ITEM.pack(
            item.index, _OP_NUMBER[item.op], item.vcpu, item.access is Access.WRITE, item.cpl, flags, item.msr,
            item.gpa, item.value & MASK64, item.pause_us,
        )  # fmt: skip
    except struct.error as exc:
        raise UsageError(f"item {item.index}: {exc}") from None


def page_content(gpa: int, nonce: int, *, foldable: bool = False) -> bytes:
    """What a pool page holds before the run: 8 known bytes, then 4088 that no compressor folds, or zeros.

    :param foldable: for zswap, which leaves pages that it cannot make smaller to the device.
    """
    first = struct.pack("<Q", (gpa ^ nonce ^ PAGE_KEY) & MASK64)
    if foldable:
        return first + bytes(4088)
    return first + hashlib.shake_128(struct.pack("<QQ", gpa, nonce)).digest(4088)
