# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and writing the kernel's small files (procfs, sysfs, cgroupfs, tracefs)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from harness.errors import DeadlineExpired, InfraFault

PAGE = 4096
COMPACT = "/proc/sys/vm/compact_memory"
"""What drains the batches of the CPUs; of a kernel without it nobody can say what is left on the lists."""
_CHUNK = 1 << 16


def read_text(path: str) -> str:
    """The file as text.  By open(2) and read(2) alone: the agent reads them by the hundred, in an emulated machine.

    :raise OSError: as open(2) and read(2) say.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, _CHUNK):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", errors="replace")


def read_once(path: str) -> str:
    """As read_text, by one read(2), of a file of less than a page that the kernel makes anew at each: if it has grown
    meanwhile, a second one tells its last letters again (kernel/trace/trace.c:tracing_stats_read).

    :raise OSError: as open(2) and read(2) say.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, PAGE).decode("utf-8", errors="replace")
    finally:
        os.close(fd)


def write_text(path: str, text: str) -> None:
    """Write ``text`` by one write(2), as the kernel's files want it.

    :raise OSError: what the kernel answered (EAGAIN and EBUSY mean something here).
    """
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def append_text(path: str, text: str) -> None:
    """As write_text, with O_APPEND: kprobe_events and triggers lose their other lines without it."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def key_values(text: str) -> dict[str, int]:
    """Lines ``name number`` (vmstat, memory.stat, cpu.stat) as a mapping; other lines are left out."""
    pairs = (line.split() for line in text.splitlines())
    return {p[0]: int(p[1]) for p in pairs if len(p) == 2 and p[1].lstrip("-").isdigit()}


def selected(text: str) -> str:
    """The chosen word of a sysfs choice file: ``always madvise [never]`` -> ``never``."""
    _, bracket, rest = text.partition("[")
    return rest.partition("]")[0] if bracket else text.strip()


def wait_until(done: Callable[[], bool], seconds: float, what: str, *, every: float = 0.01) -> None:
    """Ask ``done`` until it says yes.

    :raise DeadlineExpired: not within ``seconds``; the message names ``what``.
    """
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise DeadlineExpired(f"{what}: not within {seconds:g} s")
        time.sleep(every)


def find_mount(fstype: str, mounts: str = "/proc/self/mounts") -> str:
    """Where the first file system of this type is mounted, "" if nowhere."""
    for line in read_text(mounts).splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[2] == fstype:
            return fields[1]
    return ""


def available_mib() -> int:
    """MemAvailable: what can be had without swapping (mm/show_mem.c:si_mem_available), in MiB."""
    line = next(x for x in read_text("/proc/meminfo").splitlines() if x.startswith("MemAvailable:"))
    return int(line.split()[1]) >> 10


def need_file(path: str, why: str) -> None:
    """:raise InfraFault: ``path`` does not exist."""
    if not os.path.exists(path):
        raise InfraFault(f"{path}: does not exist ({why})")
