# SPDX-License-Identifier: GPL-2.0-or-later
"""apf doctor: what this machine can do, and what it would need.  Changes nothing."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts.needed_tools import needs
from harness.artifacts.store import default_root
from harness.cli import options
from harness.hosts.accel import rule_out

_GIB = 1 << 30
_FULL_SET_GIB = 6


@dataclass(frozen=True, slots=True)
class Check:
    """``need``: "run" (nothing works without), "build" (kernels from source), "speed" (works without, slowly)."""

    what: str
    ok: bool
    found: str
    need: str
    remedy: str = ""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = subparsers.add_parser(
        "doctor", help="what this machine can do, and what it would need",
        description="Check this machine; changes nothing.  Exit code 3 when scenarios cannot run here.",
    )  # fmt: skip
    p.set_defaults(func=main)


def main(_args: argparse.Namespace) -> int:
    """Print the checks and a conclusion."""
    checks = list(examine())
    for c in checks:
        mark = "ok     " if c.ok else ("MISSING" if c.need != "speed" else "slower ")
        print(f"{mark}  {c.what:<22} {c.found}{'' if c.ok or not c.remedy else f'  ->  {c.remedy}'}")
    bad = {c.need for c in checks if not c.ok}
    print()
    print(f"scenarios on packaged kernels: {'no' if 'run' in bad else 'yes'}")
    print(f"kernels built from source:     {'no' if bad & {'run', 'build'} else 'yes'}")
    print(f"virtual host runs under:       {'TCG (emulated SVM)' if 'speed' in bad else 'KVM, if it passes its test'}")
    return 3 if "run" in bad else 0


def examine() -> Iterator[Check]:
    """All checks, in the order in which they are printed."""
    for need in needs():
        where = need.found()
        found = where or "not found"
        if where and need.probe.startswith("qemu"):
            found = f"{where}: {_first_line([where, '--version'])}"
        use = "build" if need.use == "build" else "run"
        yield Check(
            need.probe if need.is_command else need.package,
            bool(where),
            found,
            use,
            f"apt-get install {need.package} (or make setup)",
        )
    machine = os.uname().machine
    yield Check("processor", machine == "x86_64", f"{machine}, {os.cpu_count()} CPUs", "run", "an x86-64 machine")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Check("memory", memory > 3 * _GIB, f"{memory / _GIB:.1f} GiB", "run", "3 GiB or more")
    yield _disk(default_root())
    reason = rule_out()
    yield Check("nested KVM", not reason, reason or "nothing speaks against it", "speed", "not needed: TCG does it")


def _disk(root: Path) -> Check:
    there = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(there).free / _GIB
    writable = os.access(there, os.W_OK)
    found = f"{root}, {free:.1f} GiB free" if writable else f"{there} cannot be written"
    return Check(
        "cache folder", writable and free > 1, found, "run",
        f"room for 1 GiB, or {_FULL_SET_GIB} GiB with kernels built from source; XDG_CACHE_HOME chooses another place",
    )  # fmt: skip


def _first_line(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"cannot be run: {exc}"
    return done.stdout.partition("\n")[0]
