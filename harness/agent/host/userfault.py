# SPDX-License-Identifier: GPL-2.0-or-later
"""userfaultfd(2) as its manager sees it (include/uapi/linux/userfaultfd.h): bytes to values, and the ioctls.

Any process that holds the descriptor may register ranges and put pages there, whose memory it is does not matter.  When
the last holder closes it, whoever sleeps in handle_userfault is woken and its page is what it would be without
(fs/userfaultfd.c:userfaultfd_release).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

SYS_USERFAULTFD, SYS_CLOSE = 323, 3
_SYS_PIDFD_GETFD = 438
FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_API = 0xAA
_UFFDIO_API, _UFFDIO_REGISTER, _UFFDIO_WAKE, _UFFDIO_COPY = 0xC018AA3F, 0xC020AA00, 0x8010AA02, 0xC028AA03
_UFFDIO_ZEROPAGE = 0xC020AA04
_MODE_MISSING = 1
_EVENT_PAGEFAULT = 0x12
_MESSAGE = struct.Struct("<B7xQQQ")  # struct uffd_msg: event, flags, address, ptid
_MESSAGES = 64
_libc = ctypes.CDLL(None, use_errno=True)


def has_userfaultfd() -> bool:
    """Whether the kernel has it, and lets this process handle faults of kernel mode."""
    fd = _libc.syscall(SYS_USERFAULTFD, FLAGS)
    if fd < 0:
        return False
    os.close(fd)
    return True


def take_descriptor(pid: int, number: int) -> int:
    """A copy of descriptor ``number`` of another process (pidfd_getfd, Linux 5.6). :raise OSError:"""
    pidfd = os.pidfd_open(pid)
    try:
        fd = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
        if fd < 0:
            raise OSError(ctypes.get_errno(), f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
        os.set_inheritable(fd, False)
        return int(fd)
    finally:
        os.close(pidfd)


def register_missing(fd: int, start: int, length: int) -> None:
    """Tell of pages in the range that are not there, from now on. :raise OSError: not memory that can be registered."""
    fcntl.ioctl(fd, _UFFDIO_API, struct.pack("<QQQ", _API, 0, 0))
    fcntl.ioctl(fd, _UFFDIO_REGISTER, struct.pack("<QQQQ", start, length, _MODE_MISSING, 0))


def faults(fd: int) -> Iterator[int]:
    """Addresses of the faults that have come since. :raise OSError:"""
    while True:
        try:
            data = os.read(fd, _MESSAGE.size * _MESSAGES)
        except BlockingIOError:
            return
        for event, _, address, _ in _MESSAGE.iter_unpack(data):
            if event == _EVENT_PAGEFAULT:
                yield address
        if len(data) < _MESSAGE.size * _MESSAGES:
            return


def copy(fd: int, address: int, content: bytes) -> None:
    """Put a page there and wake whoever waits for it; one that is there already stays as it is, and a process that is
    gone needs none.

    :raise OSError: the kernel refuses.
    """
    source = ctypes.create_string_buffer(content, len(content))
    request = bytearray(struct.pack("<QQQQq", address, ctypes.addressof(source), len(content), 0, 0))
    _fill(fd, _UFFDIO_COPY, request, address, len(content))


def zero(fd: int, address: int, length: int) -> None:
    """As ``copy``, pages of zeroes, up to the first that is there already. :raise OSError: the kernel refuses."""
    _fill(fd, _UFFDIO_ZEROPAGE, bytearray(struct.pack("<QQQq", address, length, 0, 0)), address, length)


def _fill(fd: int, ioctl: int, request: bytearray, address: int, length: int) -> None:
    try:
        fcntl.ioctl(fd, ioctl, request)
    except FileExistsError:
        fcntl.ioctl(fd, _UFFDIO_WAKE, struct.pack("<QQ", address, length))
    except OSError as exc:  # EAGAIN: some of the range, which whoever waits was told of
        if exc.errno not in (errno.ESRCH, errno.ENOENT, errno.EAGAIN):
            raise
