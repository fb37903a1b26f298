# SPDX-License-Identifier: GPL-2.0-or-later
"""Another process's memory and page table, for real."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

import pytest

from harness.agent.host import syscalls
from harness.agent.host.kernel_files import read_text
from harness.agent.pages import remote_madvise
from harness.agent.pages.guest_memory import GuestMemory, ProcessMemory
from harness.agent.pages.pagemap import PageMap, decode_entry, regions
from harness.contract.probe_abi import CONTROL_GPA, CONTROL_PAGE, LOG_BYTES, LOG_GPA, RECORD, decode_control
from harness.errors import InfraFault
from tests.unit.agent.conftest import Child, root_only

pytestmark = root_only


def test_read_and_write(child: Child) -> None:
    with ProcessMemory(child.pid) as memory:
        assert [memory.read(child.address + 4096 * page, 1)[0] for page in range(8)] == list(range(1, 9))
        memory.write(child.address + 4090, b"across pages")
        assert memory.read(child.address + 4090, 12) == b"across pages"


def test_what_is_not_mapped_is_an_error(child: Child) -> None:
    with ProcessMemory(child.pid) as memory, pytest.raises(OSError):
        memory.read(4096, 8)


def test_pagemap_tells_written_from_untouched(child: Child) -> None:
    with PageMap(child.pid) as pagemap:
        present = [pagemap.entry(child.address + 4096 * page).present for page in range(child.pages)]
    assert present == [True] * 8 + [False] * 8


def test_regions_cover_the_area(child: Child) -> None:
    found = [r for r in regions(child.pid) if r.start <= child.address < r.end]
    assert len(found) == 1
    assert found[0].permissions.startswith("rw")
    assert found[0].end - child.address >= 4096 * child.pages


@pytest.mark.parametrize(
    ("raw", "present", "swapped", "kind", "offset"),
    [(1 << 63, True, False, 0, 0), (0, False, False, 0, 0), (1 << 62 | 0x1234 << 5 | 3, False, True, 3, 0x1234)],
)
def test_entry_bits(raw: int, present: bool, swapped: bool, kind: int, offset: int) -> None:
    entry = decode_entry(raw)
    assert (entry.present, entry.swapped, entry.swap_type, entry.swap_offset) == (present, swapped, kind, offset)


def _flags(child: Child) -> list[str]:
    inside = False
    for line in read_text(f"/proc/{child.pid}/smaps").splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            start, end = (int(n, 16) for n in head.split("-"))
            inside = start <= child.address < end
        elif inside and head == "VmFlags:":
            return line.split()[1:]
    return []


def test_madvise_in_another_process(child: Child) -> None:
    """MADV_RANDOM shows as a flag of the VMA, and the process goes on (the fixture ends it by its stdin)."""
    assert "rr" not in _flags(child)
    remote_madvise.madvise_apart(child.pid, child.address, 4096 * child.pages, syscalls.MADV_RANDOM)
    assert "rr" in _flags(child)
    remote_madvise.madvise_apart(child.pid, child.address, 4096 * child.pages, syscalls.MADV_NOHUGEPAGE)
    assert "nh" in _flags(child)


def test_madvise_in_another_process_fails_as_the_call_does(child: Child) -> None:
    with pytest.raises(InfraFault, match="Cannot allocate memory"):
        remote_madvise.madvise_apart(child.pid, 4096, 4096, syscalls.MADV_RANDOM)
    with ProcessMemory(child.pid) as memory:
        assert memory.read(child.address, 1) == b"\x01"


def test_process_madvise_takes_its_ranges(child: Child) -> None:
    pidfd = os.pidfd_open(child.pid)
    try:
        ranges = [(child.address, 4096), (child.address + 8192, 8192)]
        assert syscalls.process_madvise(pidfd, ranges, syscalls.MADV_PAGEOUT) == 12288
    finally:
        os.close(pidfd)


def test_control_page_and_go(child: Child) -> None:
    """The child's area as guest RAM: its address 0 lies so that the control page is the child's first page."""
    control = struct.pack("<QQIIIIQQI", 0x3150424F52504641, 77, 3, 5, 2, 1, 77 ^ 0xA5A5A5A5A5A5A5A5, 2_600_000, 4)
    raw = control.ljust(64, b"\0") + struct.pack("<2I", 10, 20)
    with ProcessMemory(child.pid) as memory:
        memory.write(child.address, raw)
        guest = GuestMemory(memory, child.address - 0x800000, 2)
        seen = guest.control()
        assert seen == decode_control(raw, 2)
        assert (seen.state, seen.go, seen.host_index, seen.host_entries, seen.counts) == (3, 5, 2, 4, (10, 20))
        assert seen.is_of(77) and seen.is_complete(77)
        assert not seen.is_of(78) and not seen.is_complete(78)
        assert guest.go() == 6
        assert guest.control().go == 6
        assert guest.control().state == 3


class _Running(ProcessMemory):
    """This process's own memory, in which a guest writes a record after each look at it."""

    def __init__(self) -> None:
        super().__init__(os.getpid())
        self.ram = mmap.mmap(-1, LOG_GPA + LOG_BYTES)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))

    def read(self, address: int, size: int) -> bytes:
        found = super().read(address, size)
        at = CONTROL_GPA + CONTROL_PAGE.at("log_count").offset
        (count,) = struct.unpack_from("<I", self.ram, at)
        struct.pack_into("<I", self.ram, at, count + 1)
        return found


def test_the_log_of_a_guest_that_runs_on_is_whole() -> None:
    with _Running() as memory:
        log = GuestMemory(memory, memory.base, 1).log()
    (count,) = struct.unpack_from("<I", log, CONTROL_PAGE.at("log_count").offset)
    assert len(log) == 4096 + count * RECORD.size
