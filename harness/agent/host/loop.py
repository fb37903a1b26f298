# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk for a machine that has none to spare: a loop device over a file that has no name, so that it goes with it."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress

# include/uapi/linux/loop.h
_SET_FD = 0x4C00
_CTL_GET_FREE = 0x4C82
_TRIES = 20


def open_loop_disk(note: Callable[[str, int], None], folder: str, mib: int) -> str:
    """A block device of ``mib`` MiB over a file of ``folder`` whose blocks are all there; its path.

    A sparse file could find the disk full in the middle of swapping.

    :param note: called with device and inode of its file before a device is taken, for the journal.
    :raise OSError: no room, or no loop device.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, mib << 20)
        inode = os.fstat(file.fileno()).st_ino
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(_TRIES):
                number = fcntl.ioctl(control, _CTL_GET_FREE)
                path = f"/dev/loop{number}"
                note(path, inode)
                device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(device, _SET_FD, file.fileno())
                    return path
                except OSError as exc:
                    if exc.errno != errno.EBUSY:  # somebody else was faster
                        raise
                finally:
                    os.close(device)
        finally:
            os.close(control)
    raise OSError(errno.EBUSY, "every free loop device was taken by somebody else")


def backing_inode(device: str) -> int:
    """The inode of the file below a loop device, 0 when there is none (LOOP_GET_STATUS64, lo_inode)."""
    with suppress(OSError), open(device, "rb") as file:
        status = bytearray(232)
        fcntl.ioctl(file, 0x4C05, status)
        return int(struct.unpack_from("<Q", status, 8)[0])
    return 0


def detach(device: str, inode: int) -> None:
    """Take the file from the device, if it is the one with this inode.

    :raise OSError: the device is in use: LOOP_CLR_FD would only make it go with its last user, whenever that is.
    """
    if backing_inode(device) != inode:
        return
    with open(device, "rb") as file:
        fcntl.ioctl(file, 0x4C01)
    if backing_inode(device) == inode:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), device)
