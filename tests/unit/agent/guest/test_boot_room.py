# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest whose kernel does not fit into its memory is refused before it boots."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.agent.guest.boot_room import check_boot_room
from harness.errors import Unsupported

MIB = 1 << 20


def _kernel(folder: Path, init_size: int, version: int = 0x20F) -> tuple[str, str]:
    """A bzImage's header that says ``init_size``, and an initramfs of 2 MiB."""
    head = bytearray(0x264)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<Q", head, 0x258, 16 * MIB)
    struct.pack_into("<I", head, 0x260, init_size)
    kernel, initrd = folder / "bzImage", folder / "initrd"
    kernel.write_bytes(bytes(head))
    initrd.write_bytes(bytes(2 * MIB))
    return str(kernel), str(initrd)


def test_kernel_that_cannot_unpack_itself(tmp_path: Path) -> None:
    kernel, initrd = _kernel(tmp_path, 60 * MIB + 1)  # as debian-7.3's
    with pytest.raises(Unsupported, match=r"cannot unpack itself in 64 MiB: with its initramfs it needs 79 MiB"):
        check_boot_room(kernel, initrd, 64)
    with pytest.raises(Unsupported):
        check_boot_room(kernel, initrd, 78)
    check_boot_room(kernel, initrd, 79)


def test_small_kernel_fits(tmp_path: Path) -> None:
    check_boot_room(*_kernel(tmp_path, 23 * MIB), 64)


@pytest.mark.parametrize("content", [b"", b"\x7fELF" + bytes(1000)])
def test_file_without_the_header_is_let_pass(tmp_path: Path, content: bytes) -> None:
    kernel, initrd = _kernel(tmp_path, 60 * MIB)
    Path(kernel).write_bytes(content)
    check_boot_room(kernel, initrd, 64)


def test_old_header_says_nothing(tmp_path: Path) -> None:
    check_boot_room(*_kernel(tmp_path, 60 * MIB, version=0x209), 64)
