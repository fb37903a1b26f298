# SPDX-License-Identifier: GPL-2.0-or-later
"""A memfd that QEMU makes: shmem."""

from __future__ import annotations

import os

from harness.agent.ram.guest_ram import GuestRam
from harness.errors import InfraFault


class MemfdRam(GuestRam):
    """memory-backend-memfd."""

    def qemu_object(self, path: str) -> tuple[str, str]:
        return "memory-backend-memfd", ""

    def open(self, pid: int, path: str) -> int:
        return open_memfd(pid)


def open_memfd(pid: int) -> int:
    """QEMU's memory-backend-memfd, opened anew. :raise InfraFault: it has none."""
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{entry}").startswith("/memfd:memory-backend-memfd"):
                return os.open(f"/proc/{pid}/fd/{entry}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
    raise InfraFault("QEMU holds no memfd")
