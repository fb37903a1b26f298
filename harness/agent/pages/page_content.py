# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent writes into a pool page before the run (docs/formats/probe.md section 6)."""

from __future__ import annotations

import hashlib
import struct

from harness.contract.plan import Plan, descriptor_tables
from harness.contract.probe_abi import PAGE_SIZE, gate, page_word

_REST = PAGE_SIZE - 8


def page_content(gpa: int, nonce: int, *, foldable: bool = False) -> bytes:
    """8 known bytes, then a rest that no compressor folds, or zeros.

    :param foldable: for zswap, which leaves pages that it cannot make smaller to the device.
    """
    first = struct.pack("<Q", page_word(gpa, nonce))
    if foldable:
        return first + bytes(_REST)
    return first + hashlib.shake_128(struct.pack("<QQ", gpa, nonce)).digest(_REST)


def planned_content(plan: Plan, gpa: int, *, foldable: bool = False) -> bytes:
    """What a page of the plan holds: the same, or behind the known bytes the gates of an IDT, but for that of vector 0,
    which nothing uses."""
    if gpa not in descriptor_tables(plan):
        return page_content(gpa, plan.nonce, foldable=foldable)
    gates = b"".join(gate(vector) for vector in range(1, PAGE_SIZE // 16))
    return struct.pack("<QQ", page_word(gpa, plan.nonce), 0) + gates
