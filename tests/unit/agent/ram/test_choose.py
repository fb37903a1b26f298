# SPDX-License-Identifier: GPL-2.0-or-later
"""Each word for the memory behind guest RAM has a kind of its own, and QEMU and the kernel see it as that kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.agent.ram.choose import ram_of
from harness.agent.ram.guest_ram import cached_pages, is_hole
from harness.contract.words import Backing
from harness.errors import InfraFault

_MEMFD = """
import os, sys
fd = os.memfd_create(sys.argv[1])
os.ftruncate(fd, 3 * 4096)
os.pwrite(fd, b"x", 4096)
print(flush=True)
sys.stdin.read()
"""


def test_each_word_has_a_kind_of_its_own() -> None:
    kinds = {backing: ram_of(backing).qemu_object("/ram")[0] for backing in Backing}
    assert len(set(kinds.values())) == len(Backing)


def test_a_memfd_of_qemu_is_found_and_read() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _MEMFD, "memory-backend-memfd"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        fd = ram_of(Backing.MEMFD).open(process.pid, "")
        try:
            assert [is_hole(fd, n * 4096) for n in range(3)] == [True, False, True]
            assert [byte & 1 for byte in cached_pages(fd, 3 * 4096)] == [0, 1, 0]
        finally:
            os.close(fd)
        process.communicate()


def test_a_process_without_such_a_memfd_is_refused() -> None:
    with pytest.raises(InfraFault, match="no memfd"):
        ram_of(Backing.MEMFD).open(os.getpid(), "")


def test_anonymous_memory_has_no_file_and_a_file_is_opened(tmp_path: Path) -> None:
    assert ram_of(Backing.ANON).open(os.getpid(), "") == -1
    path = tmp_path / "ram"
    path.write_bytes(b"x")
    fd = ram_of(Backing.FILE).open(os.getpid(), str(path))
    assert os.pread(fd, 1, 0) == b"x"
    os.close(fd)
