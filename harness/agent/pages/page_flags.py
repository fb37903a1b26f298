# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel says of a page frame: /proc/kpageflags and /proc/kpagecgroup.

Bits: include/uapi/linux/kernel-page-flags.h; fs/proc/page.c:stable_page_flags takes those of a large folio from the
folio, for each of its pages.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from types import TracebackType

_KPAGEFLAGS, _KPAGECGROUP = "/proc/kpageflags", "/proc/kpagecgroup"
_UPTODATE, _DIRTY, _LRU, _SWAP_CACHE, _SWAP_BACKED = 1 << 3, 1 << 4, 1 << 5, 1 << 13, 1 << 14
_COMPOUND, _ZERO_PAGE = 1 << 15 | 1 << 16, 1 << 24
_OF_ONE_PAGE = (_LRU, _UPTODATE, _SWAP_BACKED)


@dataclass(frozen=True, slots=True)
class FrameFlags:
    """Of the folio: what only a page table knows to be dirty is not in ``dirty``.  ``large``: it has several pages.
    ``on_list``: it is on a list from which reclaim takes pages; None: the zero page is on none, and of a large folio
    kernels before 6.9 tell it of the first page alone.  ``uptodate``, ``swap_backed``: what the folio holds is what was
    read or written, and it is no page of a file on a disk; None as ``on_list``."""

    dirty: bool
    swap_cache: bool
    large: bool
    on_list: bool | None = None
    uptodate: bool | None = None
    swap_backed: bool | None = None


class PageFlags:
    """/proc/kpageflags and /proc/kpagecgroup.  A context manager."""

    def __init__(self) -> None:
        self._fd, self._groups = (
            os.open(path, os.O_RDONLY | os.O_CLOEXEC) if os.path.exists(path) else -1
            for path in (_KPAGEFLAGS, _KPAGECGROUP)
        )

    def __enter__(self) -> PageFlags:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in (self._fd, self._groups):
            if fd >= 0:
                os.close(fd)

    def of(self, frame: int | None) -> FrameFlags | None:
        """Of the frame of this number; None where there is none, or this kernel does not tell. :raise OSError:"""
        if not frame or self._fd < 0:
            return None
        (word,) = struct.unpack("<Q", os.pread(self._fd, 8, frame * 8))
        return decode_flags(word)

    def group_of(self, frame: int | None) -> int | None:
        """The inode of the cgroup to which it is charged, 0 for none; None as above. :raise OSError:"""
        if not frame or self._groups < 0:
            return None
        (inode,) = struct.unpack("<Q", os.pread(self._groups, 8, frame * 8))
        return int(inode)


def decode_flags(word: int) -> FrameFlags:
    """One word of kpageflags."""
    told = (None,) * 3 if word & (_COMPOUND | _ZERO_PAGE) else tuple(bool(word & f) for f in _OF_ONE_PAGE)
    return FrameFlags(bool(word & _DIRTY), bool(word & _SWAP_CACHE), bool(word & _COMPOUND), *told)
