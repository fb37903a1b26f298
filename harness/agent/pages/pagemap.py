# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process's page table says of its pages: /proc/<pid>/pagemap and maps.

Bits: fs/proc/task_mmu.c (5.10 to 6.12), Documentation/admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

import array
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from harness.agent.host.kernel_files import PAGE, read_text

_PRESENT = 1 << 63
_SWAPPED = 1 << 62
_FILE_OR_SHARED = 1 << 61
_FRAME = (1 << 55) - 1
_CHUNK_PAGES = 65536
_SWAPPED_TOP = re.compile(b"[%b]" % b"".join(b"\\x%02x" % top for top in range(256) if top << 56 & _SWAPPED))
"""The top byte of a word whose bit 62 is set."""


@dataclass(frozen=True, slots=True)
class PageEntry:
    """One page: present in the page table, or a swap entry of it (type and slot offset), or neither."""

    present: bool
    swapped: bool
    swap_type: int
    swap_offset: int
    file_or_shared: bool


@dataclass(frozen=True, slots=True)
class Region:
    """One VMA: [start, end) in bytes, permissions as in maps, path or name, "" for plain anonymous memory."""

    start: int
    end: int
    permissions: str
    path: str


def decode_entry(raw: int) -> PageEntry:
    """A 64-bit word of pagemap."""
    swapped = bool(raw & _SWAPPED)
    return PageEntry(
        present=bool(raw & _PRESENT),
        swapped=swapped,
        swap_type=raw & 0x1F if swapped else 0,
        swap_offset=(raw >> 5) & ((1 << 50) - 1) if swapped else 0,
        file_or_shared=bool(raw & _FILE_OR_SHARED),
    )


def swapped_indices(words: bytes) -> Iterator[int]:
    """Which of these words of pagemap are swap entries.

    A process has tens of thousands of pages and few such entries: the top byte of each word is all that is looked at,
    by a search in C.
    """
    tops = words[7::8] if sys.byteorder == "little" else words[::8]
    return (match.start() for match in _SWAPPED_TOP.finditer(tops))


class PageMap:
    """The pagemap of one process.  A context manager."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> PageMap:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def entry(self, address: int) -> PageEntry:
        """:raise OSError:"""
        return decode_entry(self._words(address // PAGE, 1)[0])

    def frame(self, address: int) -> int | None:
        """Page frame number, 0 for those without CAP_SYS_ADMIN; None: not present. :raise OSError:"""
        word = self._words(address // PAGE, 1)[0]
        return word & _FRAME if word & _PRESENT else None

    def swapped_addresses(self) -> Iterator[tuple[Region, int]]:
        """Every page of the process whose page-table entry is a swap entry."""
        for region in regions(self._pid):
            for first in range(region.start // PAGE, region.end // PAGE, _CHUNK_PAGES):
                count = min(_CHUNK_PAGES, region.end // PAGE - first)
                for index in swapped_indices(os.pread(self._fd, count * 8, first * 8)):
                    yield region, (first + index) * PAGE

    def _words(self, first_page: int, count: int) -> array.array[int]:
        words = array.array("Q")
        words.frombytes(os.pread(self._fd, count * 8, first_page * 8))
        return words


def regions(pid: int) -> list[Region]:
    """The VMAs of a process, without the kernel's own (vsyscall, vvar)."""
    found = []
    for line in read_text(f"/proc/{pid}/maps").splitlines():
        fields = line.split(None, 5)
        start, end = (int(n, 16) for n in fields[0].split("-"))
        path = fields[5] if len(fields) > 5 else ""
        if path not in ("[vsyscall]", "[vvar]", "[vvar_vclock]"):
            found.append(Region(start, end, fields[1], path))
    return found
