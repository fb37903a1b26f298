# SPDX-License-Identifier: GPL-2.0-or-later
"""A system call inside another process, by ptrace(2), for what only it can do to itself.

x86-64.  The main thread is stopped, made to execute one ``syscall`` instruction that exists in its C library or vdso,
and put back as it was.  orig_rax is -1 for the step, so that the kernel does not restart an interrupted call there;
with the old registers back, it restarts as usual.  Signals that come meanwhile are sent again afterwards: before one of
them would be delivered the process stops, too, and whether the instruction was executed its address tells.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal

from harness.agent.pages.guest_memory import ProcessMemory
from harness.agent.pages.pagemap import regions
from harness.errors import InfraFault

_PTRACE_CONT, _PTRACE_SINGLESTEP, _PTRACE_GETREGS, _PTRACE_SETREGS, _PTRACE_DETACH = 7, 9, 12, 13, 17
_PTRACE_SEIZE, _PTRACE_INTERRUPT = 0x4206, 0x4207
_PTRACE_EVENT_STOP = 128
_WALL = 0x40000000
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")

# struct user_regs_struct (arch/x86/include/asm/user_64.h), in order.
_NAMES = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip


class _Registers(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_ulonglong) for name in _NAMES)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def call(pid: int, what: int, *arguments: int) -> int:
    """The system call ``what`` executed by process ``pid``; what it returns, -errno included.

    :raise InfraFault: it could not be traced.
    """
    instruction = _find_syscall(pid)
    _ptrace(_PTRACE_SEIZE, pid, 0, 0)
    signals: list[int] = []
    try:
        _ptrace(_PTRACE_INTERRUPT, pid, 0, 0)
        while (came := _signal_at_stop(pid)) is not None:
            signals.append(came)
            _ptrace(_PTRACE_CONT, pid, 0, 0)
        saved = _registers(pid)
        changed = _Registers.from_buffer_copy(saved)
        changed.rip, changed.rax, changed.orig_rax = instruction, what, 0xFFFFFFFFFFFFFFFF
        for name, value in zip(_ARGUMENTS, arguments, strict=False):
            setattr(changed, name, value)
        _ptrace(_PTRACE_SETREGS, pid, 0, ctypes.addressof(changed))
        try:
            while True:
                _ptrace(_PTRACE_SINGLESTEP, pid, 0, 0)
                came = _signal_at_stop(pid)
                found = _registers(pid)
                if found.rip != instruction:
                    break
                if came is not None:
                    signals.append(came)
            while came != signal.SIGTRAP:  # which the step ends with, and which would kill the process
                if came is not None:
                    signals.append(came)
                _ptrace(_PTRACE_CONT, pid, 0, 0)
                came = _signal_at_stop(pid)
            return ctypes.c_longlong(found.rax).value
        finally:
            _ptrace(_PTRACE_SETREGS, pid, 0, ctypes.addressof(saved))
    finally:
        _ptrace(_PTRACE_DETACH, pid, 0, 0)
        for number in signals:
            os.kill(pid, number)


def call_apart(pid: int, number: int, *arguments: int) -> int:
    """As call, from a process of its own: where the caller is the parent of ``pid`` and waits for its end somewhere,
    that wait must not get the stops.

    :raise InfraFault: as call.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        told: dict[str, object] = {}
        try:
            told = {"result": call(pid, number, *arguments)}
        except BaseException as exc:  # noqa: BLE001  (whatever it is, it goes to the parent in words)
            told = {"problem": str(exc) or type(exc).__name__}
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as file:
        answer = json.loads(file.read() or '{"problem": "the tracing process died"}')
    os.waitpid(child, 0)
    if "problem" in answer:
        raise InfraFault(answer["problem"])
    return int(answer["result"])


def _find_syscall(pid: int) -> int:
    """The address of a ``syscall`` instruction (0f 05) in the C library or the vdso."""
    with ProcessMemory(pid) as memory:
        candidates = [r for r in regions(pid) if "x" in r.permissions and ("libc" in r.path or r.path == "[vdso]")]
        for region in candidates:
            offset = memory.read(region.start, region.end - region.start).find(b"\x0f\x05")
            if offset >= 0:
                return region.start + offset
    raise InfraFault(f"no syscall instruction found in process {pid}")


def _registers(pid: int) -> _Registers:
    registers = _Registers()
    _ptrace(_PTRACE_GETREGS, pid, 0, ctypes.addressof(registers))
    return registers


def _signal_at_stop(pid: int) -> int | None:
    """Wait until it stops; the signal that it is about to be given, None where it stops for us, or with its group."""
    _, status = os.waitpid(pid, _WALL)
    if not os.WIFSTOPPED(status):
        raise InfraFault(f"process {pid} ended while it was traced")
    return None if status >> 16 == _PTRACE_EVENT_STOP else os.WSTOPSIG(status)


def _ptrace(request: int, pid: int, address: int, data: int) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        raise InfraFault(f"ptrace request {request:#x} on {pid}: {os.strerror(ctypes.get_errno())}")
