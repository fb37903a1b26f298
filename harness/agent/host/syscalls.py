# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that Python 3.11 has no function for, by ctypes on the C library.  x86-64."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress

_libc = ctypes.CDLL(None, use_errno=True)

SYS_KEXEC_FILE_LOAD, SYS_PROCESS_MADVISE = 320, 440
MADV_RANDOM = 1
MADV_SEQUENTIAL = 2
MADV_NOHUGEPAGE = 15
MADV_PAGEOUT = 21
IOV_MAX = 1024
PR_SET_NAME, PR_SET_IO_FLUSHER = 15, 57
_PROT_READ, _MAP_SHARED = 1, 1
_SYNC_FILE_RANGE = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER
_PUNCH_HOLE = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_INSERT_RANGE = 0x20  # FALLOC_FL_INSERT_RANGE
_MAP_FAILED = ctypes.c_void_p(-1).value


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


SWAP_FLAG_PREFER, SWAP_FLAG_PRIO_MASK = 0x8000, 0x7FFF  # include/linux/swap.h


def swapon(device: str, priority: int) -> None:
    """swapon(2) with a priority from 0 to SWAP_FLAG_PRIO_MASK. :raise OSError:"""
    _check(_libc.swapon(device.encode(), SWAP_FLAG_PREFER | priority), f"swapon {device}")


def swapoff(device: str) -> None:
    """swapoff(2): returns when all its pages are read back. :raise OSError: EINVAL: it is no swap area in use."""
    _check(_libc.swapoff(device.encode()), f"swapoff {device}")


def mount(source: str, target: str, fstype: str, options: str = "") -> None:
    """mount(2). :raise OSError:"""
    _check(_libc.mount(source.encode(), target.encode(), fstype.encode(), 0, options.encode()), f"mount {target}")


def umount(target: str) -> None:
    """umount2(2). :raise OSError: EINVAL: nothing is mounted there."""
    _check(_libc.umount2(target.encode(), 0), f"umount {target}")


def process_madvise(pidfd: int, ranges: Sequence[tuple[int, int]], advice: int) -> int:
    """process_madvise(2) (5.10; mm/madvise.c:process_madvise) on ``ranges`` of (address, bytes) of another process.

    Each range is one pass of its own through reclaim, in the order given, so swap slots are given out in that order.
    Returns how many bytes were advised. :raise OSError:
    """
    done = 0
    for start in range(0, len(ranges), IOV_MAX):
        part = ranges[start : start + IOV_MAX]
        vector = (_Iovec * len(part))(*(_Iovec(a, n) for a, n in part))
        args = (ctypes.c_long(pidfd), vector, ctypes.c_ulong(len(part)), ctypes.c_long(advice), ctypes.c_ulong(0))
        done += _check(_libc.syscall(ctypes.c_long(SYS_PROCESS_MADVISE), *args), "process_madvise")
    return done


def name_thread(name: str) -> None:
    """prctl(2) PR_SET_NAME: the calling thread's comm, 15 characters."""
    _libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def io_flusher() -> None:
    """prctl(2) PR_SET_IO_FLUSHER (5.6): what we allocate never waits for I/O of our own device.  Older: nothing."""
    _libc.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0)


def sync_file_range(fd: int, offset: int, length: int) -> None:
    """sync_file_range(2): write these bytes of a file back and wait until they are written. :raise OSError:"""
    _libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    _check(_libc.sync_file_range(fd, offset, length, _SYNC_FILE_RANGE), "sync_file_range")


def empty_lru_batches() -> bool:
    """Every CPU's batches of folios on their way to an LRU list, as compaction does, which would wait for the lock of
    each page whose read is held, and unmap the others: who seals a memfd against writes waits for whoever has a
    reference to one of its pages, and has those batches emptied first (mm/memfd.c:memfd_wait_for_pins).  Here a pipe
    has one, so that this takes a fifth of a second.

    :return: False: this kernel has no memfd.
    """
    try:
        fd = os.memfd_create("apf-batches", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as exc:
        if exc.errno != errno.ENOSYS:
            raise
        return False
    pipe = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(fd, bytes(mmap.PAGESIZE))
        os.splice(fd, pipe[1], mmap.PAGESIZE, offset_src=0)
        with suppress(OSError):  # EBUSY, as it is not given back
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    finally:
        for each in (fd, *pipe):
            os.close(each)
    return True


def punch_hole(fd: int, offset: int, length: int) -> None:
    """fallocate(2): make these bytes of a file a hole; its size stays. :raise OSError:"""
    _fallocate(fd, _PUNCH_HOLE, offset, length)


def insert_hole(fd: int, offset: int, length: int) -> None:
    """fallocate(2): put a hole into a file; what lay there and behind moves back, and its blocks stay where they are.

    :raise OSError: the offset is not within the file, or the file system cannot (ext4 and XFS can).
    """
    _fallocate(fd, _INSERT_RANGE, offset, length)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    _libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    _check(_libc.fallocate(fd, mode, offset, length), "fallocate")


def mincore_file(fd: int, offset: int, pages: int) -> bytes:
    """mincore(2) on a mapping of our own of a file: bit 0 of byte i says page i is in the page cache (or, of a shmem
    file, in the swap cache). mm/mincore.c:mincore_page. :raise OSError:"""
    length = pages * 4096
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    address = _libc.mmap(None, length, _PROT_READ, _MAP_SHARED, fd, offset)
    if address == _MAP_FAILED:
        _check(-1, "mmap")
    try:
        vector = (ctypes.c_ubyte * pages)()
        _check(_libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(length), vector), "mincore")
        return bytes(vector)
    finally:
        _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))


_KEXEC_FILE_UNLOAD = 1  # include/uapi/linux/kexec.h
_RB_KEXEC = 0x45584543  # include/uapi/linux/reboot.h, LINUX_REBOOT_CMD_KEXEC


def kexec_file_load(kernel: str, initrd: str, cmdline: str) -> None:
    """kexec_file_load(2). :raise OSError: ENOEXEC: not a kernel; EPERM: not allowed; EBUSY: somebody else is at it."""
    with open(kernel, "rb") as image, open(initrd, "rb") as archive:
        text = cmdline.encode()
        result = _libc.syscall(
            SYS_KEXEC_FILE_LOAD, image.fileno(), archive.fileno(), ctypes.c_ulong(len(text) + 1),
            ctypes.c_char_p(text), ctypes.c_ulong(0),
        )  # fmt: skip
    _check(result, "kexec_file_load")


def kexec_unload() -> None:
    """Drop what was loaded, if anything was. :raise OSError: ENOSYS: this kernel cannot load any."""
    nothing, none = ctypes.c_char_p(None), ctypes.c_ulong(0)
    _check(
        _libc.syscall(SYS_KEXEC_FILE_LOAD, -1, -1, none, nothing, ctypes.c_ulong(_KEXEC_FILE_UNLOAD)),
        "kexec_file_load",
    )


def kexec_reboot() -> None:
    """reboot(2) into what was loaded; does not return. :raise OSError: EINVAL: nothing was."""
    _check(_libc.reboot(_RB_KEXEC), "reboot")
