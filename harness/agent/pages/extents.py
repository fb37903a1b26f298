# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a file's bytes lie on its device: FS_IOC_FIEMAP (fs/ioctl.c:ioctl_fiemap, 5.10 to 6.12)."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterable
from dataclasses import dataclass

_FS_IOC_FIEMAP = 0xC020660B
_HEADER = struct.Struct("<QQIIII")
_EXTENT = struct.Struct("<QQQ16xI12x")
_BATCH = 256
_LAST, _UNKNOWN, _DELALLOC, _UNWRITTEN = 0x1, 0x2, 0x4, 0x800


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes [start, end) of a file that were really written, and lie one after the other from ``physical`` on."""

    start: int
    end: int
    physical: int

    def at(self, offset: int) -> int:
        """Byte on the device of byte ``offset`` of the file."""
        return self.physical + offset - self.start


def written_extents(fd: int) -> tuple[Extent, ...]:
    """The extents of a file in order, those that touch in the file and on the device as one; no unwritten ones.

    :raise OSError: the file system has no FIEMAP.
    """
    found: list[Extent] = []
    start = 0
    while True:
        buffer = bytearray(_HEADER.pack(start, (1 << 64) - 1 - start, 0, 0, _BATCH, 0) + bytes(_BATCH * _EXTENT.size))
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, buffer)
        count = _HEADER.unpack_from(buffer)[3]
        flags = _LAST
        for index in range(count):
            logical, physical, length, flags = _EXTENT.unpack_from(buffer, _HEADER.size + index * _EXTENT.size)
            start = logical + length
            if not flags & (_UNKNOWN | _DELALLOC | _UNWRITTEN):
                _add(found, Extent(logical, logical + length, physical))
        if flags & _LAST:
            return tuple(found)


def _add(found: list[Extent], extent: Extent) -> None:
    before = found[-1] if found else None
    if before and before.end == extent.start and before.at(extent.start) == extent.physical:
        found[-1] = Extent(before.start, extent.end, before.physical)
    else:
        found.append(extent)


def parts(extents: Iterable[Extent], start: int, end: int) -> tuple[Extent, ...]:
    """What of [start, end) is written: one part means that it can be read by one bio."""
    cut = []
    for extent in extents:
        first, last = max(start, extent.start), min(end, extent.end)
        if first < last:
            cut.append(Extent(first, last, extent.at(first)))
    return tuple(cut)
