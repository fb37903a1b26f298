# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the machine's time stamp counter runs, which the processors of an emulated host read as their own.

The host's kernel would find out by the emulated PIT (arch/x86/kernel/tsc.c:pit_hpet_ptimer_calibrate_cpu).  Where QEMU
waits for a processor meanwhile it finds a wrong frequency, now and then, and believes it against the HPET: its clock
then runs several times too fast, and its watchdogs tell of stalls that never were.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import time

_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl $32, %rdx; or %rdx, %rax; ret
_APART_S = 0.05
_LOOKS = 50


@functools.cache
def tsc_khz() -> int:
    """In kHz, measured against CLOCK_MONOTONIC_RAW for 50 ms, to some 10 ppm whatever else runs; 0: not to be had, on
    another architecture or where no memory may be made executable."""
    if platform.machine() != "x86_64":
        return 0
    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return 0
    code.write(_RDTSC)
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def look() -> tuple[int, int, int]:
        """(how sure, ns, cycles): of many the one that was least disturbed."""
        found = []
        for _ in range(_LOOKS):
            before, cycles, behind = _now_ns(), int(rdtsc()), _now_ns()
            found.append((behind - before, (before + behind) // 2, cycles))
        return min(found)

    _, began_ns, began = look()
    time.sleep(_APART_S)
    _, ended_ns, ended = look()
    return round((ended - began) * 1_000_000 / (ended_ns - began_ns))


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
