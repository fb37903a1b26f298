# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host offers, asked of the kernel itself, never of version numbers."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

from harness.agent.host import dm, nbd, syscalls
from harness.agent.host.kernel_files import COMPACT, find_mount, read_text, selected
from harness.agent.host.tracing import KVM_EVENTS
from harness.contract.capture import HostFacts


def host_facts() -> HostFacts:
    """What there is.  Whether KVM really works is for a guest to show, not for /dev/kvm."""
    tracing = find_mount("tracefs")
    cgroup = find_mount("cgroup2")
    return HostFacts(
        release=os.uname().release,
        kernel_version=os.uname().version,
        cmdline=read_text("/proc/cmdline").strip(),
        cpus=os.cpu_count() or 0,
        memory_kib=_memory_kib(),
        kvm_device=os.access("/dev/kvm", os.R_OK | os.W_OK),
        kvm_modules=tuple(m for m in ("kvm", "kvm_amd", "kvm_intel") if os.path.isdir(f"/sys/module/{m}")),
        kvm_parameters=_parameters(),
        tracefs=tracing,
        kvm_events=tuple(e for e in KVM_EVENTS if tracing and os.path.isdir(f"{tracing}/events/kvm/{e}")),
        kprobe_events=bool(tracing) and os.path.exists(f"{tracing}/kprobe_events"),
        debugfs=find_mount("debugfs"),
        cgroup2=cgroup,
        cgroup_memory=bool(cgroup) and "memory" in read_text(f"{cgroup}/cgroup.controllers").split(),
        memory_reclaim=_has_memory_reclaim(cgroup),
        process_madvise=_has_process_madvise(),
        vm_event_counters="pswpin" in read_text("/proc/vmstat"),
        dm_delay=dm.has_delay(),
        nbd=nbd.has_nbd(),
        zram=os.path.exists("/sys/block/zram0") or os.path.isdir("/sys/class/zram-control"),
        thp=_choice("/sys/kernel/mm/transparent_hugepage/enabled"),
        lru_gen=_choice("/sys/kernel/mm/lru_gen/enabled"),
        swap_in_use=tuple(line.split()[0] for line in read_text("/proc/swaps").splitlines()[1:]),
        mkfs_ext4=shutil.which("mkfs.ext4") is not None,
        compaction=os.path.exists(COMPACT),
    )


def qemu_version(qemu: str) -> str:
    """First line of --version, "" if it cannot be run."""
    try:
        done = subprocess.run([qemu, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.partition("\n")[0]


def _choice(path: str) -> str:
    return selected(read_text(path)) if os.path.exists(path) else ""


def _memory_kib() -> int:
    return int(read_text("/proc/meminfo").split()[1])


def _parameters() -> dict[str, str]:
    found = {}
    for module in ("kvm", "kvm_amd", "kvm_intel"):
        folder = f"/sys/module/{module}/parameters"
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            try:
                found[f"{module}.{name}"] = read_text(f"{folder}/{name}").strip()
            except OSError:
                continue  # write-only
    return found


def _has_memory_reclaim(cgroup: str) -> bool:
    """The root group has no memory.reclaim, so ask any group below it, or one made and removed for it."""
    if not cgroup:
        return False
    below = [e.path for e in os.scandir(cgroup) if e.is_dir() and os.path.exists(f"{e.path}/memory.current")]
    if below:
        return os.path.exists(f"{below[0]}/memory.reclaim")
    if "memory" not in read_text(f"{cgroup}/cgroup.subtree_control").split():
        return False
    probe = f"{cgroup}/apf-facts-{os.getpid()}"
    try:
        os.mkdir(probe)
    except OSError:
        return False
    try:
        return os.path.exists(f"{probe}/memory.reclaim")
    finally:
        os.rmdir(probe)


def _has_process_madvise() -> bool:
    """ENOSYS or not, with an advice over nothing."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        syscalls.process_madvise(pidfd, [(0, 0)], syscalls.MADV_PAGEOUT)
    except OSError as exc:
        return exc.errno not in (errno.ENOSYS, errno.EPERM)
    finally:
        os.close(pidfd)
    return True
