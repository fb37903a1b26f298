# SPDX-License-Identifier: GPL-2.0-or-later
"""Anonymous memory of QEMU; with share=on shmem without a name."""

from __future__ import annotations

from harness.agent.ram.guest_ram import GuestRam


class AnonRam(GuestRam):
    """memory-backend-ram."""

    in_page_table = True

    def qemu_object(self, path: str) -> tuple[str, str]:
        return "memory-backend-ram", ""

    def open(self, pid: int, path: str) -> int:
        return -1
