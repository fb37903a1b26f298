# SPDX-License-Identifier: GPL-2.0-or-later
"""An ext4 image of a folder, without root: all owners are root, all times are one, equal folders give equal bytes.

mke2fs lays the files out; what it takes from the machine (owners, times of the staged files) is then
overwritten in the inode tables.  Checksums and the journal are off: the image is only ever mounted read-only.
Layout: Documentation/filesystems/ext4 of the kernel (super block, group descriptors, inode).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts.command import command
from harness.errors import BuildFailed

BLOCK = 4096
INODE = 256
EPOCH = 1_600_000_000
"""The time of everything in an image, in seconds; any fixed value after the first Debian 12 files would do."""
_UUID = "0c0ffee0-a51f-4ca7-9fde-0123456789ab"
_FEATURES = "none,filetype,extent,sparse_super,large_file,ext_attr,extra_isize"
_SUPER_AT = 1024
_MAGIC = 0xEF53


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the super block says."""

    inodes_per_group: int
    groups: int
    block_size: int
    inode_size: int


def make(folder: Path, image: Path, *, label: str) -> None:
    """Write an image of ``folder``, just large enough.

    :raise InfraFault: mkfs.ext4 is missing.
    :raise BuildFailed: it failed, or wrote something else than expected.
    """
    blocks, inodes = _measure(folder)
    environment = {"E2FSPROGS_FAKE_TIME": str(EPOCH), "MKE2FS_CONFIG": "/dev/null", "PATH": _path()}
    command(
        [
            "mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-I", str(INODE), "-N", str(inodes), "-m", "0", "-O", _FEATURES,
            "-U", _UUID, "-L", label, "-E", f"hash_seed={_UUID},root_owner=0:0,no_copy_xattrs,lazy_itable_init=0",
            "-d", folder, image, str(blocks),
        ],
        env=environment,
    )  # fmt: skip
    _make_anonymous(image)


def _measure(folder: Path) -> tuple[int, int]:
    """Blocks and inodes that the folder needs, with room for the file system's own."""
    blocks = inodes = 0
    for path in folder.rglob("*"):
        inodes += 1
        blocks += 1 + (0 if path.is_symlink() or path.is_dir() else -(-path.lstat().st_size // BLOCK))
    inodes += 64
    blocks += blocks // 32 + inodes * INODE // BLOCK + 1024
    return blocks, inodes


def _path() -> str:
    """PATH with the folders where mkfs lives, which a plain user may lack."""
    return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


def _make_anonymous(image: Path) -> None:
    """Give every inode in use the owner root and the one time."""
    with image.open("r+b") as file:
        layout = _layout(file.read(_SUPER_AT + 1024)[_SUPER_AT:], image)
        file.seek(layout.block_size)  # the group descriptors follow the super block's block
        descriptors = file.read(32 * layout.groups)
        for group in range(layout.groups):
            (table,) = struct.unpack_from("<I", descriptors, 32 * group + 8)
            file.seek(table * layout.block_size)
            raw = bytearray(file.read(layout.inodes_per_group * layout.inode_size))
            for offset in range(0, len(raw), layout.inode_size):
                _anonymous_inode(raw, offset)
            file.seek(table * layout.block_size)
            file.write(raw)


def _layout(raw: bytes, image: Path) -> _Layout:
    blocks, per_group, inodes_per_group = struct.unpack_from("<I24xI4xI", raw, 4)
    (log_block,) = struct.unpack_from("<I", raw, 24)
    (magic,) = struct.unpack_from("<H", raw, 56)
    (inode_size,) = struct.unpack_from("<H", raw, 88)
    (ro_compat,) = struct.unpack_from("<I", raw, 100)
    (incompat,) = struct.unpack_from("<I", raw, 96)
    # 0x400 metadata_csum would need new checksums; 0x80 64bit has descriptors of another size.
    if magic != _MAGIC or ro_compat & 0x400 or incompat & 0x80 or log_block != 2:
        raise BuildFailed(f"{image}: mkfs.ext4 made a file system of another layout than asked for")
    return _Layout(inodes_per_group, -(-blocks // per_group), 1024 << log_block, inode_size)


def _anonymous_inode(raw: bytearray, offset: int) -> None:
    mode, links = struct.unpack_from("<H24xH", raw, offset)[0], struct.unpack_from("<H", raw, offset + 26)[0]
    if mode == 0 or links == 0:
        return
    struct.pack_into("<H", raw, offset + 2, 0)  # i_uid
    struct.pack_into("<III", raw, offset + 8, EPOCH, EPOCH, EPOCH)  # i_atime, i_ctime, i_mtime
    struct.pack_into("<H", raw, offset + 24, 0)  # i_gid
    struct.pack_into("<I", raw, offset + 100, 0)  # i_generation
    struct.pack_into("<HH", raw, offset + 120, 0, 0)  # l_i_uid_high, l_i_gid_high
    # i_ctime_extra, i_mtime_extra, i_atime_extra (nanoseconds), i_crtime, i_crtime_extra
    struct.pack_into("<IIIII", raw, offset + 132, 0, 0, 0, EPOCH, 0)
