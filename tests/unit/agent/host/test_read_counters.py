# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.agent.host.read_counters import is_kernel_thread, other_majors, thread_state


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
