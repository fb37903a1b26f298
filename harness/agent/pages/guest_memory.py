# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's memory, seen from the host through /proc/<qemu>/mem, and the probe guest's control page in it."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import IntEnum

CONTROL_GPA = 0x800000
CONTROL_MAGIC = 0x3150424F52504641
END_KEY = 0xA5A5A5A5A5A5A5A5
LOG_GPA = 0xA00000
LOG_STRIDE = 0x40000
RECORD_BYTES = 32
LOG_RECORDS = 8192
_CONTROL = struct.Struct("<QQIIIIQQI12x")
_GO_OFFSET = 20


class State(IntEnum):
    """Offset 16 of the control page."""

    NONE = 0
    READY = 1
    RUNNING = 2
    HOST = 3
    DONE = 4
    PANIC = 5


@dataclass(frozen=True, slots=True)
class Control:
    """The control page (docs/formats.md section 3); ``counts`` are log records of each vCPU."""

    magic: int
    nonce: int
    state: int
    go: int
    host_index: int
    ended: int
    end_mark: int
    tsc_khz: int
    host_entries: int
    counts: tuple[int, ...]

    def is_of(self, nonce: int) -> bool:
        """Whether the guest with this nonce has set the page up."""
        return self.magic == CONTROL_MAGIC and self.nonce == nonce

    def is_complete(self, nonce: int) -> bool:
        return self.is_of(nonce) and self.end_mark == nonce ^ END_KEY


def decode_control(raw: bytes, vcpus: int) -> Control:
    """``raw``: at least 64 + 4 * vcpus bytes of the control page."""
    counts = struct.unpack_from(f"<{vcpus}I", raw, 64)
    magic, nonce, state, go, host_index, ended, end_mark, tsc_khz, entries = _CONTROL.unpack_from(raw)
    return Control(magic, nonce, state, go, host_index, ended, end_mark, tsc_khz, entries, counts)


class ProcessMemory:
    """Memory of another process, by address in it.  A context manager; needs ptrace rights, not a stop."""

    def __init__(self, pid: int) -> None:
        self._fd = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> ProcessMemory:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def read(self, address: int, length: int) -> bytes:
        """:raise OSError: EIO: not mapped (or only in part)."""
        data = b""
        while len(data) < length:
            part = os.pread(self._fd, length - len(data), address + len(data))
            if not part:
                raise OSError(5, f"process memory ends at {address + len(data):#x}")
            data += part
        return data

    def write(self, address: int, data: bytes) -> None:
        """:raise OSError: EIO: not mapped, or the process has ended."""
        done = 0
        while done < len(data):
            part = os.pwrite(self._fd, data[done:], address + done)
            if not part:
                raise OSError(5, f"process memory ends at {address + done:#x}")
            done += part


class GuestMemory:
    """RAM of the guest by guest physical address; ``base`` is where address 0 is in QEMU."""

    def __init__(self, memory: ProcessMemory, base: int, vcpus: int) -> None:
        self.memory = memory
        self.base = base
        self.vcpus = vcpus

    def control(self) -> Control:
        return decode_control(self.memory.read(self.base + CONTROL_GPA, 64 + 4 * self.vcpus), self.vcpus)

    def go(self) -> int:
        """Let the guest go on: the counter it spins on, plus one.  Returns the new value."""
        address = self.base + CONTROL_GPA + _GO_OFFSET
        (value,) = struct.unpack("<I", self.memory.read(address, 4))
        self.memory.write(address, struct.pack("<I", (value + 1) & 0xFFFFFFFF))
        return int(value) + 1

    def write_page(self, gpa: int, data: bytes) -> None:
        self.memory.write(self.base + gpa, data)

    def log(self) -> bytes:
        """The control page and the logs of all vCPUs, as guest/log.bin wants them."""
        control = self.control()
        logs = [
            self.memory.read(self.base + LOG_GPA + LOG_STRIDE * v, min(n, LOG_RECORDS) * RECORD_BYTES)
            for v, n in enumerate(control.counts)
        ]
        return self.memory.read(self.base + CONTROL_GPA, 4096) + b"".join(logs)
