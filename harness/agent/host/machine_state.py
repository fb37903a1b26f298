# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a machine must be after a run as it was before, as text, and what has changed between two looks.

Settings of the kernel that the agent changes, or that say what it did: sysctls of memory management and the kernel,
parameters of KVM, swap, block devices with their queues, device-mapper, cgroups and trace instances of ours, probes,
modules of ours, mounts of ours.  What moves by itself is left out.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping

from harness.agent.host.kernel_files import find_mount, read_text
from harness.agent.host.loaded_modules import LOADED_BY_US, loaded
from harness.agent.host.loop import backing_inode

_SETTINGS = (
    "/proc/sys/vm/*",
    "/proc/sys/kernel/*",
    "/sys/kernel/kexec_*loaded",
    "/sys/kernel/mm/*/*",
    "/sys/module/kvm*/parameters/*",
    "/sys/module/zswap/parameters/*",
)
_MOVE = ("ns_last_pid", "stat_refresh", "compact_memory", "drop_caches", "pages_scanned", "full_scans", "uevent_seqnum")
_MOVE_BELOW = ("/sys/kernel/mm/ksm/", "/sys/kernel/mm/hugepages/", "/sys/kernel/mm/page_idle/", "/sys/kernel/mm/damon/")
_KSM = ("/sys/kernel/mm/ksm/run",)
_QUEUE = ("rotational", "read_ahead_kb", "max_sectors_kb", "nomerges", "scheduler")
_OURS = "apf"


def machine_state() -> dict[str, str]:
    """Everything by the path, or the name, under which it is known."""
    state = dict(_settings())
    state["swap"] = " ".join(sorted(line.split()[0] for line in read_text("/proc/swaps").splitlines()[1:]))
    state |= _blocks()
    state["modules"] = " ".join(sorted(loaded() & set(LOADED_BY_US)))
    mounts = (line.split()[1] for line in read_text("/proc/self/mounts").splitlines())
    state["mounts"] = " ".join(sorted(path for path in mounts if _OURS in path))
    cgroup = find_mount("cgroup2")
    if cgroup:
        state["cgroups"] = " ".join(sorted(n for n in os.listdir(cgroup) if n.startswith(_OURS)))
        state[f"{cgroup}/cgroup.subtree_control"] = read_text(f"{cgroup}/cgroup.subtree_control").strip()
    tracing = find_mount("tracefs")
    if tracing:
        state["trace instances"] = " ".join(sorted(os.listdir(f"{tracing}/instances")))
        for name in ("kprobe_events", "uprobe_events", "current_tracer", "set_event", "tracing_on", "trace_clock"):
            state |= _file(f"{tracing}/{name}")
    return state


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What differs, in words; empty: nothing."""
    found = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old != new:
            was, now = ("absent" if value is None else repr(value) for value in (old, new))
            found.append(f"{key} was {was}, is {now}")
    return found


def _settings() -> Iterator[tuple[str, str]]:
    for pattern in _SETTINGS:
        for path in sorted(glob.glob(pattern)):
            if os.path.basename(path) in _MOVE or (path.startswith(_MOVE_BELOW) and path not in _KSM):
                continue
            yield from _file(path).items()


def _file(path: str) -> dict[str, str]:
    """Its text; nothing for a folder, and for what cannot be read."""
    if os.path.isdir(path) or not os.access(path, os.R_OK):
        return {}
    try:
        return {path: read_text(path).strip()}
    except OSError:
        return {}


def _blocks() -> dict[str, str]:
    """Block devices that something is behind, with their size, what they are made of, and their queue."""
    state = {}
    for path in sorted(glob.glob("/sys/block/*")):
        size = _file(f"{path}/size").get(f"{path}/size", "0")
        if size == "0":
            continue
        words = [f"{size} sectors", *_file(f"{path}/dm/name").values()]
        name = os.path.basename(path)
        if name.startswith("loop"):
            words.append(f"file {backing_inode(f'/dev/{name}')}")
        words += [f"{key}={value}" for key in _QUEUE for value in _file(f"{path}/queue/{key}").values()]
        state[f"block device {name}"] = ", ".join(words)
    return state
