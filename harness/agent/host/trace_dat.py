# SPDX-License-Identifier: GPL-2.0-or-later
"""trace.dat, the file of trace-cmd and KernelShark, from the ring buffers of a tracefs instance.

It is written here and not by trace-cmd, so that it is to be had from every host: trace-cmd would be one more package on
each of them, and before it reads anything it sets events, which patches the kernel's text (resident.py).  The pages
are the kernel's own, byte for byte.

The layout is version 6, as the manual page trace-cmd.dat.v6(5) has it; what that does not say is from trace-cmd 3.1.6,
lib/trace-cmd/trace-input.c: option 4, without data, tells that the text of trace_clock follows the table of CPUs.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from harness.errors import InfraFault

_MAGIC = b"\x17\x08\x44tracing"
_OPTION_CLOCK = 4
_DATA = re.compile(rb"field:\s*char data;\s*offset:(\d+);\s*size:(\d+);")


@dataclass(frozen=True, slots=True)
class TraceDescription:
    """What a reader of the pages must know: files of tracefs as they are.

    :ivar ftrace: formats of ftrace's own records.
    :ivar systems: by system ("kvm") the formats of its events.
    :ivar cmdlines: saved_cmdlines: a thread's id and name on each line.
    :ivar clock: trace_clock.
    """

    header_page: bytes
    header_event: bytes
    ftrace: Sequence[bytes]
    systems: Mapping[str, Sequence[bytes]]
    cmdlines: bytes
    clock: bytes

    @property
    def page_bytes(self) -> int:
        """How many bytes the kernel hands out at once: its header and its data.

        :raise InfraFault: header_page does not say.
        """
        match = _DATA.search(self.header_page)
        if match is None:
            raise InfraFault("tracefs: events/header_page has no field data")
        return int(match[1]) + int(match[2])


def write_trace_dat(root: str, instance: str, events: Sequence[str], path: str) -> None:
    """Move what the ring buffers of a stopped instance hold into ``path``; they are empty afterwards.

    :param root: where tracefs is mounted.
    :param events: "system/event" of those that were recorded.
    :raise OSError: a file of tracefs cannot be read.
    :raise InfraFault: see TraceDescription.page_bytes.
    """
    told = _describe(root, instance, events)
    cpus = sorted(int(name.removeprefix("cpu")) for name in os.listdir(f"{instance}/per_cpu"))
    with open(path, "wb") as file:
        file.write(_head(told, len(cpus)))
        table = file.tell()
        file.write(bytes(16 * len(cpus)) + _sized(told.clock))
        places = []
        for cpu in cpus:
            file.write(bytes(-file.tell() % told.page_bytes))
            begin = file.tell()
            for page in _pages(f"{instance}/per_cpu/cpu{cpu}/trace_pipe_raw", told.page_bytes):
                file.write(page)
            places.append((begin, file.tell() - begin))
        file.seek(table)
        file.write(b"".join(struct.pack("<QQ", *place) for place in places))


def _describe(root: str, instance: str, events: Sequence[str]) -> TraceDescription:
    systems: dict[str, list[bytes]] = {}
    for event in events:
        systems.setdefault(event.partition("/")[0], []).append(_read(f"{instance}/events/{event}/format"))
    own = sorted(os.listdir(f"{root}/events/ftrace"))
    formats = [f"{root}/events/ftrace/{name}/format" for name in own]
    return TraceDescription(
        header_page=_read(f"{root}/events/header_page"),
        header_event=_read(f"{root}/events/header_event"),
        ftrace=[_read(name) for name in formats if os.path.exists(name)],
        systems=systems,
        cmdlines=_read(f"{root}/saved_cmdlines"),
        clock=_read(f"{instance}/trace_clock"),
    )


def _head(told: TraceDescription, cpus: int) -> bytes:
    """Everything before the table of the CPUs' data; little endian, longs of 8 bytes: the host is an x86-64."""
    parts = [_MAGIC, b"6\0", bytes([0, 8]), struct.pack("<I", told.page_bytes)]
    parts += [b"header_page\0", _sized(told.header_page), b"header_event\0", _sized(told.header_event)]
    parts += [struct.pack("<I", len(told.ftrace)), *map(_sized, told.ftrace)]
    parts.append(struct.pack("<I", len(told.systems)))
    for system, formats in told.systems.items():
        parts += [system.encode() + b"\0", struct.pack("<I", len(formats)), *map(_sized, formats)]
    no_symbols = no_printk = struct.pack("<I", 0)  # no event of ours prints an address as a symbol, or trace_printk's
    parts += [no_symbols, no_printk, _sized(told.cmdlines), struct.pack("<I", cpus)]
    parts += [b"options  \0", struct.pack("<HI", _OPTION_CLOCK, 0), struct.pack("<H", 0), b"flyrecord\0"]
    return b"".join(parts)


def _sized(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def _pages(path: str, size: int) -> Iterator[bytes]:
    """The pages of a CPU, oldest first; reading takes them out (kernel/trace/trace.c:tracing_buffers_read)."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as raw, suppress(BlockingIOError):
        while page := _page(raw, size):
            yield page


def _page(raw: BinaryIO, size: int) -> bytes:
    """One page; empty at the end, which is None where the file would block."""
    page = raw.read(size)
    if page and len(page) != size:
        raise InfraFault(f"tracefs: {len(page)} bytes of a page of {size}")
    return page or b""


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
