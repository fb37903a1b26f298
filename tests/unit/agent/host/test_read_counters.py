# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters of this machine."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from pathlib import Path

import pytest

from harness.agent.host import read_counters
from harness.agent.host.read_counters import anonymous_pages, is_kernel_thread, other_majors, thread_state


def _flags(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6])


def test_kernel_threads_are_those_that_the_kernel_calls_so() -> None:
    kthread = 0x00200000  # include/linux/sched.h:PF_KTHREAD
    seen = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                said = bool(_flags(int(name)) & kthread)
                assert is_kernel_thread(int(name)) == said, name
            except OSError:
                continue  # it has ended meanwhile
            seen.add(said)
    assert True not in seen or seen == {True, False}
    assert not is_kernel_thread(os.getpid())


def test_majors_of_all_but_one_are_at_least_our_own() -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert other_majors(1) >= int(fields[9]) + int(fields[10])


def test_a_thread_that_is_gone() -> None:
    assert thread_state(os.getpid()) == "R"
    with pytest.raises(ProcessLookupError):
        os.kill(2**22 - 1, 0)
    assert thread_state(2**22 - 1) == "X"


def test_anonymous_pages_are_counted_where_guest_ram_is() -> None:
    """A vCPU's thread that ends frees its stack, which is anonymous memory, too."""
    length = 64 * mmap.PAGESIZE
    with mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as ram:
        ram.madvise(mmap.MADV_NOHUGEPAGE)
        begin = ctypes.addressof(here := ctypes.c_char.from_buffer(ram))
        first = range(begin, begin + length)
        assert anonymous_pages(os.getpid(), first) == 0
        ram[: 3 * mmap.PAGESIZE] = b"x" * (3 * mmap.PAGESIZE)
        assert anonymous_pages(os.getpid(), first) == 3
        assert anonymous_pages(os.getpid(), range(1, 2)) == 0
        del here


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES])
def test_refresh_with_a_negative_counter(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What 5.10 answers where nr_zone_write_pending is negative; the counters are folded in by then."""

    def refused(path: str) -> str:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(read_counters, "STAT_REFRESH", "/proc/self/stat")
    monkeypatch.setattr(read_counters, "read_text", refused)
    if number == errno.EINVAL:
        read_counters.refresh()
    else:
        with pytest.raises(PermissionError):
            read_counters.refresh()
