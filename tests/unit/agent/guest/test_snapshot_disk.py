# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk of snapshots, with a real QEMU: what is saved is what is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from harness.agent.guest.qemu import Guest
from harness.agent.guest.snapshot_disk import snapshot_disk
from harness.agent.pages.guest_memory import ProcessMemory
from tests.unit.agent.conftest import needs_qemu, root_only
from tests.unit.agent.guest.test_qemu import with_guest

pytestmark = [needs_qemu, root_only]


def test_memory_is_as_it_was_saved(tmp_path: Path) -> None:
    async def act(guest: Guest) -> None:
        with ProcessMemory(guest.pid) as memory:
            at = await guest.ram_base() + 0x1000000
            memory.write(at, b"before")
            await guest.savevm()
            memory.write(at, b"behind")
            await guest.loadvm()
            assert memory.read(at, 6) == b"before"
        await guest.cont()
        await guest.nmi()

    with snapshot_disk(wanted=True) as disk:
        os.set_inheritable(disk, True)
        drive = f"if=none,id=snapshots,format=qcow2,file=/proc/self/fd/{disk}"
        with_guest(tmp_path, act, "-drive", drive, keep_fds=(disk,))


def test_none_is_made_for_nothing() -> None:
    with snapshot_disk(wanted=False) as disk:
        assert disk == -1
