# SPDX-License-Identifier: GPL-2.0-or-later
"""FOLL_*, FAULT_FLAG_* and VM_FAULT_* with the bits that they have in the kernels that are modelled.

Sources: include/linux/mm.h of 2.6.3x with v6 01/12, of 5.10 and of 6.1; 6.12: include/linux/mm_types.h, mm/internal.h.
FOLL_MINOR and FAULT_FLAG_MINOR exist in the noio kernels only.
"""

from __future__ import annotations

import functools
from enum import IntFlag

EFAULT = 14
ENOMEM = 12
EINTR = 4
EBUSY = 16
EHWPOISON = 133
ERESTARTSYS = 512


class Foll2010(IntFlag):
    WRITE = 0x01
    TOUCH = 0x02
    GET = 0x04
    DUMP = 0x08
    FORCE = 0x10
    MINOR = 0x20  # v6 01/12


class Foll(IntFlag):
    """5.10 and 6.1.  MINOR, of our own port, takes a bit that is free in 6.1."""

    WRITE = 0x01
    TOUCH = 0x02
    GET = 0x04
    DUMP = 0x08
    FORCE = 0x10
    NOWAIT = 0x20
    MINOR = 0x40
    HWPOISON = 0x100
    TRIED = 0x800
    REMOTE = 0x2000


class Foll612(IntFlag):
    """6.12 to 7.3: renumbered; TOUCH and above are internal to mm/.  MINOR, of our own port, is free in 7.3."""

    WRITE = 1 << 0
    GET = 1 << 1
    DUMP = 1 << 2
    FORCE = 1 << 3
    NOWAIT = 1 << 4
    NOFAULT = 1 << 5
    HWPOISON = 1 << 6
    INTERRUPTIBLE = 1 << 11
    HONOR_NUMA_FAULT = 1 << 12
    MINOR = 1 << 13
    TOUCH = 1 << 16
    TRIED = 1 << 17
    REMOTE = 1 << 18
    UNLOCKABLE = 1 << 21


class FaultFlag2010(IntFlag):
    WRITE = 0x01
    NONLINEAR = 0x02
    MKWRITE = 0x04
    MINOR = 0x08  # v6 01/12


class FaultFlag(IntFlag):
    """5.10 to 7.3.  MINOR, of our own port, is the next free bit of 6.1; VMA_LOCK of 6.4 has it, and the port to 7.3
    takes the one after that."""

    WRITE = 1 << 0
    MKWRITE = 1 << 1
    ALLOW_RETRY = 1 << 2
    RETRY_NOWAIT = 1 << 3
    KILLABLE = 1 << 4
    TRIED = 1 << 5
    USER = 1 << 6
    REMOTE = 1 << 7
    INSTRUCTION = 1 << 8
    INTERRUPTIBLE = 1 << 9
    MINOR = 1 << 12


class VmFault2010(IntFlag):
    OOM = 0x0001
    SIGBUS = 0x0002
    MAJOR = 0x0004
    WRITE = 0x0008
    HWPOISON = 0x0010
    NOPAGE = 0x0100
    LOCKED = 0x0200


class VmFault(IntFlag):
    """5.10, 6.1 and 6.12."""

    OOM = 0x0001
    SIGBUS = 0x0002
    MAJOR = 0x0004
    WRITE = 0x0008
    HWPOISON = 0x0010
    HWPOISON_LARGE = 0x0020
    SIGSEGV = 0x0040
    NOPAGE = 0x0100
    LOCKED = 0x0200
    RETRY = 0x0400
    FALLBACK = 0x0800
    DONE_COW = 0x1000


VM_FAULT_ERROR_2010 = VmFault2010.OOM | VmFault2010.SIGBUS | VmFault2010.HWPOISON
VM_FAULT_ERROR = (
    VmFault.OOM | VmFault.SIGBUS | VmFault.SIGSEGV | VmFault.HWPOISON | VmFault.HWPOISON_LARGE | VmFault.FALLBACK
)


def fault_flag_allow_retry_first(flags: FaultFlag) -> bool:
    """include/linux/mm.h: retry is allowed and this is not yet the retry."""
    return FaultFlag.ALLOW_RETRY in flags and FaultFlag.TRIED not in flags


def vm_fault_to_errno(ret: VmFault, *, foll_hwpoison: bool) -> int:
    """include/linux/mm.h: 0, or a negative errno.  OOM is tested first: hence the -ENOMEM of a refused major fault."""
    if ret & VmFault.OOM:
        return -ENOMEM
    if ret & (VmFault.HWPOISON | VmFault.HWPOISON_LARGE):
        return -EHWPOISON if foll_hwpoison else -EFAULT
    if ret & (VmFault.SIGBUS | VmFault.SIGSEGV):
        return -EFAULT
    return 0


@functools.lru_cache(maxsize=4096, typed=True)  # flags of two types that are equal as numbers have other names
def show(prefix: str, flags: IntFlag) -> str:
    """The flags as a kernel developer writes them: FOLL_TOUCH|FOLL_MINOR, or 0."""
    return "|".join(prefix + (f.name or hex(f)) for f in type(flags) if f in flags) or "0"
