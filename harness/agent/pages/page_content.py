# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent writes into a pool page before the run (docs/formats/probe.md section 6)."""

from __future__ import annotations

import hashlib
import struct

from harness.contract.probe_abi import PAGE_SIZE, page_word

_REST = PAGE_SIZE - 8


def page_content(gpa: int, nonce: int, *, foldable: bool = False) -> bytes:
    """8 known bytes, then a rest that no compressor folds, or zeros.

    :param foldable: for zswap, which leaves pages that it cannot make smaller to the device.
    """
    first = struct.pack("<Q", page_word(gpa, nonce))
    if foldable:
        return first + bytes(_REST)
    return first + hashlib.shake_128(struct.pack("<QQ", gpa, nonce)).digest(_REST)
