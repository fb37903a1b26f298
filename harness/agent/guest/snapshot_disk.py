# SPDX-License-Identifier: GPL-2.0-or-later
"""An empty qcow2 image, into which QEMU's savevm may write: hosts need no qemu-img for it.

Format: docs/interop/qcow2.txt of QEMU's sources, version 3.  All numbers are big-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_BITS = 16
_CLUSTER = 1 << _BITS
_REFCOUNT_BITS_LOG2 = 4
_HEADER_BYTES = 104
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_TABLE, _BLOCK, _L1 = _CLUSTER, 2 * _CLUSTER, 3 * _CLUSTER
_USED = 4
"""Clusters in use: the header, the refcount table, its one block, the L1 table."""
_DISK_BYTES = 64 << 20


@contextmanager
def snapshot_disk(*, wanted: bool) -> Iterator[int]:
    """Descriptor of an empty image in memory, gone with the last process that has it open; -1: none is wanted."""
    if not wanted:
        yield -1
        return
    fd = os.memfd_create("apf-snapshots", os.MFD_CLOEXEC)
    try:
        os.write(fd, empty_qcow2(_DISK_BYTES))
        yield fd
    finally:
        os.close(fd)


def empty_qcow2(size: int) -> bytes:
    """The image of an empty disk of that many bytes; what a snapshot holds is kept beside the disk's own content.

    :param size: at most 512 MiB, which one entry of the L1 table reaches.
    """
    image = bytearray(_USED * _CLUSTER)
    header = _HEADER.pack(
        b"QFI\xfb", 3, 0, 0, _BITS, size, 0, 1, _L1, _TABLE, 1, 0, 0, 0, 0, 0, _REFCOUNT_BITS_LOG2, _HEADER_BYTES
    )
    image[: len(header)] = header
    struct.pack_into(">Q", image, _TABLE, _BLOCK)
    for cluster in range(_USED):
        struct.pack_into(">H", image, _BLOCK + 2 * cluster, 1)
    return bytes(image)
