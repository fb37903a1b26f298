# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel modules: which ones a list of names needs, in an order in which insmod can load them.

kmod's own tools say so: depmod finds who exports the symbols that a module lacks, and modprobe adds the soft
dependencies and the order.  Packages are unpacked without their scripts and so have no modules.dep of their own.
"""

from __future__ import annotations

import lzma
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.artifacts.command import failed, missing_tool
from harness.artifacts.needed_tools import Need
from harness.artifacts.scratch import scratch_folder
from harness.errors import BuildFailed

_RELEASE = "0.0"
"""depmod wants something like a release as the name of the folder; which one does not matter here."""


def contents(path: Path) -> bytes:
    """A module, uncompressed: busybox's insmod knows no other."""
    raw = path.read_bytes()
    return lzma.decompress(raw) if path.name.endswith(".xz") else raw


def closure(tree: Path, wanted: Iterable[str]) -> list[tuple[str, Path]]:
    """Name and file of each wanted module that exists below ``tree`` and of all that it needs, needed ones first.

    A wanted module that does not exist is left out: it is built in, or this kernel has no such driver.  In a name, "-"
    and "_" are the same, as for the kernel; the names returned have "_".

    :raise BuildFailed: modules need each other in a circle, or one cannot be read.
    :raise InfraFault: kmod is not installed.
    """
    files = sorted(path for path in tree.rglob("*.ko*") if path.name.endswith((".ko", ".ko.xz")))
    with scratch_folder("apf-modules-") as scratch:
        base = scratch / "lib/modules" / _RELEASE
        base.mkdir(parents=True)
        (scratch / "conf").mkdir()
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            (base / name).touch()
        for path in files:
            (base / path.name).symlink_to(path.absolute())
        words = ["depmod", "-e", "-b", str(scratch), _RELEASE]
        done = _kmod(words)
        if done.returncode != 0 or "ERROR" in done.stderr:  # a circle is told and still counts as success for kmod 30
            raise failed(words, done.returncode, done.stderr)
        # The machine's own modprobe.d is not for this tree: -C.  Those that do not exist are warned of, with status 1.
        done = _kmod(
            ["modprobe", "-d", str(scratch), "-S", _RELEASE, "-C", f"{scratch}/conf", "-a", "--show-depends", *wanted]
        )
        order: dict[str, Path] = {}
        for line in done.stdout.splitlines():
            verb, _, file = line.strip().partition(" ")
            if verb == "insmod":
                link = Path(file.split(" ")[0])
                order.setdefault(link.name.partition(".")[0].replace("-", "_"), link.resolve())
        return list(order.items())


def _kmod(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    tool = Need("run", "kmod", words[0]).found()
    if not tool:
        raise missing_tool(words[0])
    return subprocess.run(
        [tool, *words[1:]], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip


__all__ = ["BuildFailed", "closure", "contents"]
