# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters of the host that the judge wants before and after."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from contextlib import suppress

from harness.agent.host.cgroup import ScenarioCgroup
from harness.agent.host.kernel_files import find_mount, key_values, read_text
from harness.contract.capture import KVM_STATS, CounterSnapshot, ThreadFaults
from harness.errors import Unsupported

STAT_REFRESH = "/proc/sys/vm/stat_refresh"


def refresh() -> None:
    """Fold the per-CPU parts of the vm counters in (mm/vmstat.c:vmstat_refresh), so that what is read is exact.

    Before 5.13 it answers EINVAL once that is done, if a counter is negative for a moment (nr_zone_write_pending).
    """
    if os.path.exists(STAT_REFRESH):
        try:
            read_text(STAT_REFRESH)
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise


def swap_cached_pages(group: ScenarioCgroup | None) -> int:
    """Pages in the swap cache: of the whole host, which is exact; where it has other swap, too, of the cgroup.

    :raise Unsupported: it has, and its kernel does not count them for a cgroup (mm/memcontrol.c: from 5.12 on).
    """
    if group is not None and len(read_text("/proc/swaps").splitlines()) > 2:
        cached = group.stat().get("swapcached")
        if cached is None:
            raise Unsupported("other swap is in use, and the kernel does not count the swap cache of a cgroup")
        return cached // 4096
    refresh()
    line = next(x for x in read_text("/proc/meminfo").splitlines() if x.startswith("SwapCached:"))
    return int(line.split()[1]) // 4


def writeback_pages() -> int:
    """Pages under writeback on the whole host."""
    refresh()
    return key_values(read_text("/proc/vmstat"))["nr_writeback"]


def snapshot(pid: int, vcpu_tids: Sequence[int], group: ScenarioCgroup | None, ram: range) -> CounterSnapshot:
    """The counters of docs/formats/capture.md.

    :param ram: addresses of guest RAM in QEMU.
    """
    first = other_majors(pid)
    refresh()
    return CounterSnapshot(
        vmstat=key_values(read_text("/proc/vmstat")),
        memory_stat=group.stat() if group else {},
        threads=threads(pid, vcpu_tids),
        kvm=kvm_stats(pid),
        anon_pages=anonymous_pages(pid, ram),
        swaps=read_text("/proc/swaps"),
        interrupts=read_text("/proc/interrupts"),
        other_majors=(first, other_majors(pid)),
    )


def other_majors(pid: int) -> int:
    """Major faults of all processes but QEMU, of those that have ended, too: fields 12 and 13 of /proc/<pid>/stat.

    Kernel threads are left out: what a kworker faults in, it does for a guest (virt/kvm/async_pf.c:async_pf_execute).
    """
    found = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != pid:
            try:
                if is_kernel_thread(int(name)):
                    continue
                fields = read_text(f"/proc/{name}/stat").rpartition(")")[2].split()
            except OSError:
                continue  # it has ended just now: its parent has, or will have, its faults
            found += int(fields[9]) + int(fields[10])
    return found


def is_kernel_thread(pid: int) -> bool:
    """A task without memory of its own has no program; those are looked at only that are in no process group."""
    if os.getpgid(pid) != 0:
        return False
    try:
        os.readlink(f"/proc/{pid}/exe")
    except FileNotFoundError:
        return True
    return False


def threads(pid: int, vcpu_tids: Sequence[int]) -> dict[int, ThreadFaults]:
    """Faults of each thread of QEMU by thread id: fields 10 and 12 of /proc/<pid>/task/<tid>/stat."""
    found = {}
    for tid in sorted(int(name) for name in os.listdir(f"/proc/{pid}/task")):
        try:
            stat = read_text(f"/proc/{pid}/task/{tid}/stat")
        except OSError:
            continue  # a thread of QEMU's pool that has ended just now
        name, _, rest = stat.partition("(")[2].rpartition(")")
        fields = rest.split()
        vcpu = vcpu_tids.index(tid) if tid in vcpu_tids else -1
        found[tid] = ThreadFaults(name, fields[0], min_flt=int(fields[7]), maj_flt=int(fields[9]), vcpu=vcpu)
    return found


def thread_state(tid: int) -> str:
    """The letter of /proc/<tid>/stat; "X" where there is no such thread any more."""
    try:
        return read_text(f"/proc/{tid}/stat").rpartition(")")[2].split()[0]
    except OSError:
        return "X"


_SMAPS = re.compile(r"^(?:([0-9a-f]+)-([0-9a-f]+) |Anonymous: +([0-9]+) )", re.MULTILINE)
"""A mapping begins; or how much of it is anonymous, in kB."""


def anonymous_pages(pid: int, ram: range) -> int:
    """Anonymous pages at these addresses of the process, as a walk of its page table finds them (fs/proc/task_mmu.c:
    smaps_account): the counter behind RssAnon is of all its memory, such as the stack of a thread that ends, is kept
    per thread, and lags by up to 64 faults of each before 6.2."""
    found, inside = 0, False
    for start, end, anonymous in _SMAPS.findall(read_text(f"/proc/{pid}/smaps")):
        if start:
            inside = int(start, 16) < ram.stop and int(end, 16) > ram.start
        elif inside:
            found += int(anonymous) // 4
    return found


def kvm_stats(pid: int) -> dict[str, int]:
    """KVM_STATS of the VM from debugfs kvm/<pid>-<fd>/, sums over its vCPUs, as far as this kernel has them; {} without
    debugfs (virt/kvm/kvm_main.c:kvm_create_vm_debugfs)."""
    debugfs = find_mount("debugfs")
    folder = f"{debugfs}/kvm"
    if not debugfs or not os.path.isdir(folder):
        return {}
    found = {}
    for machine in os.listdir(folder):
        if machine.startswith(f"{pid}-"):
            for name in KVM_STATS:
                with suppress(FileNotFoundError):
                    found[name] = int(read_text(f"{folder}/{machine}/{name}"))
    return found
