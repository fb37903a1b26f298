# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent must know of the memory behind guest RAM.  One file beside this one has each kind of it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import ClassVar

from harness.agent.host import syscalls
from harness.agent.host.kernel_files import PAGE
from harness.agent.host.swap import Device, start_swap
from harness.agent.host.undo import Journal
from harness.agent.pages.extents import Extent
from harness.contract.plan import Plan


class GuestRam(ABC):
    """A kind of memory behind guest RAM.

    ``in_page_table``: a page that is out has a swap entry in QEMU's page table (anonymous memory), and there is no file
    to ask about it.  ``advice``: madvise() on the mapping, before the plan's own.
    """

    in_page_table: ClassVar[bool] = False
    advice: ClassVar[tuple[int, ...]] = ()

    def set_up(self, journal: Journal, device: Device, plan: Plan, folder: str) -> str:
        """Make use of the plan's device before QEMU starts; the RAM file's path, "" if there is none.

        :param folder: where a file system may be mounted.
        :raise Unsupported: the host has no tool for it. :raise OSError:
        """
        start_swap(journal, device)
        return ""

    @abstractmethod
    def qemu_object(self, path: str) -> tuple[str, str]:
        """Type and further options of QEMU's memory backend; ``path`` is what set_up returned."""

    @abstractmethod
    def open(self, pid: int, path: str) -> int:
        """A descriptor of the file behind the memory of this QEMU, -1 where there is none; the caller closes it.

        :raise InfraFault: QEMU holds none. :raise OSError:
        """

    def extents(self, fd: int) -> tuple[Extent, ...] | None:
        """Where the file lies on the device that is read for it; None where no device carries a file."""
        return None


def cached_pages(fd: int, size: int) -> bytes:
    """One byte per page of the file: bit 0 says that it is in the page cache (shmem: or in the swap cache)."""
    return syscalls.mincore_file(fd, 0, size // PAGE)


def is_hole(fd: int, offset: int) -> bool:
    """Whether the page was never allocated (a swapped-out page of a memfd is data)."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + PAGE
    except OSError:
        return True  # ENXIO: no data from here to the end
