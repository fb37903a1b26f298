# SPDX-License-Identifier: GPL-2.0-or-later
"""What everybody else on this machine has to do with memory while a run has it: the cgroups next to ours, one by one.

A group that comes or goes meanwhile is left out: nothing can be said of the difference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from harness.agent.host.kernel_files import find_mount, key_values, read_text

_OURS = "apf-"
_STALLED = re.compile(r"^some .*total=(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GroupUse:
    """One cgroup: bytes swapped out, major faults, and time in which some task of it waited for memory (PSI)."""

    swapped: int
    major_faults: int
    stalled_us: int


def others_use(root: str = "") -> dict[str, GroupUse]:
    """Every cgroup below the root that is not ours, by name; empty without the memory controller."""
    root = root or find_mount("cgroup2")
    found = {}
    for name in sorted(os.listdir(root)) if root else []:
        path = f"{root}/{name}"
        if os.path.isdir(path) and not name.startswith(_OURS):
            with suppress(OSError, KeyError, ValueError):
                stalled = _STALLED.search(_text(f"{path}/memory.pressure"))
                found[name] = GroupUse(
                    int(_text(f"{path}/memory.swap.current") or 0),
                    key_values(read_text(f"{path}/memory.stat"))["pgmajfault"],
                    int(stalled[1]) if stalled else 0,
                )
    return found


def _text(path: str) -> str:
    """Empty where the kernel has no such file."""
    with suppress(FileNotFoundError):
        return read_text(path)
    return ""


def grown(before: Mapping[str, GroupUse], after: Mapping[str, GroupUse]) -> list[str]:
    """Groups of which something was swapped out meanwhile, with all that is known of them, in words."""
    found = []
    for name in sorted(before.keys() & after.keys()):
        old, new = before[name], after[name]
        if new.swapped > old.swapped:
            found.append(
                f"{(new.swapped - old.swapped) >> 10} KiB of others, the cgroup {name}, were swapped out meanwhile"
                f" ({new.major_faults - old.major_faults} major faults,"
                f" {(new.stalled_us - old.stalled_us) / 1e6:.1f} s stalled)"
            )
    return found
