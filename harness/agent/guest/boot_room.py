# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a guest's kernel needs before it can look at how much it has.

A bzImage unpacks itself to ``pref_address`` and takes ``init_size`` bytes there
(``arch/x86/boot/compressed/head_64.S``; ``arch/x86/boot/header.S``, 5.10 to 7.3); the boot loader puts the
initramfs at the end of memory.  Where the two do not fit, the guest stops without a word.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from harness.errors import Unsupported

_MAGIC = slice(0x202, 0x206)
_VERSION, _PREF_ADDRESS, _INIT_SIZE = 0x206, 0x258, 0x260
_HAS_INIT_SIZE = 0x020A  # boot protocol 2.10
_END = _INIT_SIZE + 4


def check_boot_room(kernel: str, initrd: str, memory_mib: int) -> None:
    """Refuse a guest in whose memory (MiB) its kernel cannot unpack itself.  A file without the header is let pass.

    :raise Unsupported:
    """
    needed = _needed(Path(kernel)) + os.path.getsize(initrd)
    if needed > memory_mib << 20:
        raise Unsupported(
            f"the guest's kernel cannot unpack itself in {memory_mib} MiB:"
            f" with its initramfs it needs {-(-needed >> 20)} MiB (init_size of its header)"
        )


def _needed(kernel: Path) -> int:
    """Up to which address (bytes) a kernel that has not been moved (nokaslr) unpacks itself; 0: it does not say."""
    with kernel.open("rb") as file:
        head = file.read(_END)
    if len(head) < _END or head[_MAGIC] != b"HdrS" or struct.unpack_from("<H", head, _VERSION)[0] < _HAS_INIT_SIZE:
        return 0
    (start,) = struct.unpack_from("<Q", head, _PREF_ADDRESS)
    (size,) = struct.unpack_from("<I", head, _INIT_SIZE)
    return int(start) + int(size)
