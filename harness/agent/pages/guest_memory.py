# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's memory, seen from the host through /proc/<qemu>/mem, and the probe guest's control page in it."""

from __future__ import annotations

import os
import struct

from harness.contract.probe_abi import (
    CONTROL_BYTES,
    CONTROL_GPA,
    CONTROL_PAGE,
    LOG_BYTES,
    LOG_GPA,
    LOG_RECORDS,
    PAGE_SIZE,
    RECORD,
    Control,
    decode_control,
)


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
        return decode_control(self.memory.read(self.base + CONTROL_GPA, CONTROL_BYTES), self.vcpus)

    def go(self) -> int:
        """Hand over to the guest: the counter it spins on, plus one.  Returns the new value."""
        address = self.base + CONTROL_GPA + CONTROL_PAGE.at("go").offset
        (value,) = struct.unpack("<I", self.memory.read(address, 4))
        self.memory.write(address, struct.pack("<I", (value + 1) & 0xFFFFFFFF))
        return int(value) + 1

    def write_page(self, gpa: int, data: bytes) -> None:
        self.memory.write(self.base + gpa, data)

    def log(self) -> bytes:
        """The control page and the logs of all vCPUs, as guest/log.bin wants them.

        The page is read once: a guest that runs on writes more records meanwhile, which its counts do not have yet.
        """
        page = self.memory.read(self.base + CONTROL_GPA, PAGE_SIZE)
        control = decode_control(page[:CONTROL_BYTES], self.vcpus)
        logs = [
            self.memory.read(self.base + LOG_GPA + LOG_BYTES * v, min(n, LOG_RECORDS) * RECORD.size)
            for v, n in enumerate(control.counts)
        ]
        return page + b"".join(logs)
