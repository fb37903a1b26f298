# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs on a host: set a gated device up, have a process sleep on it, break something, undo, and say how it went.

    PYTHONPATH=agent.pyz python3 break_it.py swap|file server-killed|agent-killed|both-stopped|nothing FOLDER

Prints one JSON object.  Standard library and the agent only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import signal
import subprocess
import sys
import time

from harness.agent.gate.device import open_gate
from harness.agent.host import nbd, swap, syscalls
from harness.agent.host.cgroup import enter, make_cgroup, reclaim
from harness.agent.host.kernel_files import read_text, wait_until
from harness.agent.host.read_counters import swap_cached_pages, writeback_pages
from harness.agent.host.undo import Journal, pending, undo

SIZE = 64 << 20
PAGES = 16


def state(pid: int) -> str:
    try:
        return read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def reader(backing: str, folder: str) -> None:
    """After a line fill memory, after another touch it: that sleeps."""
    sys.stdin.readline()
    if backing == "swap":
        memory = mmap.mmap(-1, PAGES * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for page in range(PAGES):
            memory[page * 4096] = page + 1
    else:
        with open(f"{folder}/mnt/file", "rb") as file:
            memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) if backing == "swap" else 0
    print(address, flush=True)
    sys.stdin.readline()
    print(memory[0], flush=True)


def page_out(pid: int, address: int, group: str) -> None:
    """As pages/pageout.py does it: MADV_PAGEOUT, then small reclaims until the swap cache is empty."""
    pidfd = os.pidfd_open(pid)
    syscalls.process_madvise(pidfd, [(address, PAGES * 4096)], syscalls.MADV_PAGEOUT)
    os.close(pidfd)
    wait_until(lambda: writeback_pages() == 0, 120, "the end of writeback")

    def empty() -> bool:
        cached = swap_cached_pages(None)
        if cached:
            reclaim(group, cached * 4096)
        return not cached

    wait_until(empty, 120, "an empty swap cache")


def agent(backing: str, folder: str) -> None:
    """What the agent does, up to a process that sleeps on a held read; then it waits to be killed."""
    journal = Journal(f"{folder}/journal")
    disk = open_gate(journal, SIZE)
    gate, device = disk.gate, swap.Device(disk.path, f"nbd{disk.index}")
    group = make_cgroup(journal, "apf-break")
    if backing == "swap":
        swap.start_swap(journal, device)
    else:
        swap.mount_ext4(journal, device, f"{folder}/mnt")
        journal.change("file", path=f"{folder}/mnt/file")
        with open(f"{folder}/mnt/file", "wb") as file:
            file.write(b"\1" * 4096 * PAGES)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    process = subprocess.Popen(
        [sys.executable, __file__, "reader", backing, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    enter(group.pool, process.pid)
    process.stdin.write("fill\n")
    process.stdin.flush()
    address = int(process.stdout.readline())
    if backing == "swap":
        page_out(process.pid, address, group.pool)
    gate.arm(
        rule="step",
        order="given",
        tids=[],
        pages={},
        errors=[],
        after_s=0,
        ram_hva=-1,
        apic_ids=[],
        moved=False,
        trace="/dev/null",
    )
    gate.ask("freeze")
    process.stdin.write("go\n")
    process.stdin.flush()
    wait_until(lambda: state(process.pid) == "D", 120, "a reader that sleeps")
    wait_until(lambda: nbd.in_flight(disk.index) > 0, 120, "a read at the server")
    print(json.dumps({"server": gate.pid, "reader": process.pid, "index": disk.index}), flush=True)
    signal.pause()


def main(backing: str, harm: str, folder: str) -> None:
    """Break, undo, look."""
    os.makedirs(f"{folder}/mnt", exist_ok=True)
    process = subprocess.Popen([sys.executable, __file__, "agent", backing, folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    slept = state(told["reader"])
    match harm:
        case "server-killed":
            os.kill(told["server"], signal.SIGKILL)
        case "agent-killed":
            process.kill()
        case "both-killed":
            os.kill(told["server"], signal.SIGKILL)
            process.kill()
        case "both-stopped":
            os.kill(told["server"], signal.SIGSTOP)
            os.kill(process.pid, signal.SIGSTOP)
        case "nothing":
            pass
    began = time.monotonic()
    problems = undo(f"{folder}/journal")
    seconds = time.monotonic() - began
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()
    print(json.dumps({
        "seconds": round(seconds, 3), "slept": slept, "problems": problems, "left": pending(f"{folder}/journal"),
        "reader": state(told["reader"]), "server": state(told["server"]), "owner": nbd.owner(told["index"]),
        "swaps": read_text("/proc/swaps").splitlines()[1:], "mounted": f"{folder}/mnt" in read_text("/proc/mounts"),
    }))  # fmt: skip


if __name__ == "__main__":
    match sys.argv[1]:
        case "reader":
            reader(sys.argv[2], sys.argv[3])
        case "agent":
            agent(sys.argv[2], sys.argv[3])
        case _:
            main(sys.argv[1], sys.argv[2], sys.argv[3])
