# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel modules: which ones a list of names needs, in an order in which insmod can load them.

The names of dependencies are read from the modules themselves (.modinfo, scripts/mod/modpost.c), because
packages are unpacked without their scripts and so have no modules.dep.
"""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Iterable
from pathlib import Path

from harness.errors import BuildFailed

_SUFFIXES = (".ko", ".ko.xz", ".ko.gz")


def canonical(name: str) -> str:
    """The kernel treats - and _ in module names alike."""
    return name.replace("-", "_")


def contents(path: Path) -> bytes:
    """A module, uncompressed."""
    raw = path.read_bytes()
    if path.name.endswith(".xz"):
        return lzma.decompress(raw)
    if path.name.endswith(".gz"):
        return gzip.decompress(raw)
    return raw


def available(tree: Path) -> dict[str, Path]:
    """The modules below ``lib/modules/<release>`` by canonical name."""
    found = {}
    for path in sorted(tree.rglob("*.ko*")):
        for suffix in _SUFFIXES:
            if path.name.endswith(suffix):
                found[canonical(path.name.removesuffix(suffix))] = path
    return found


def dependencies(module: bytes) -> list[str]:
    """What the module needs loaded before: its symbols' owners, and its wishes (softdep pre)."""
    needed = []
    for value in re.findall(rb"\0depends=([^\0]*)", module):
        needed += [name for name in value.decode().split(",") if name]
    for value in re.findall(rb"\0softdep=pre: ([^\0]*?)(?: post:[^\0]*)?\0", module):
        needed += value.decode().split()
    return [canonical(name) for name in needed]


def closure(tree: Path, wanted: Iterable[str]) -> list[tuple[str, Path]]:
    """Name and file of each wanted module that exists and of all that it needs, needed ones first.

    A wanted module that does not exist is left out: it is built in, or this kernel has no such driver.

    :raise BuildFailed: modules need each other in a circle.
    """
    files = available(tree)
    order: dict[str, Path] = {}
    open_names: list[str] = []

    def visit(name: str) -> None:
        if name in order or name not in files:
            return
        if name in open_names:
            raise BuildFailed(f"{tree}: modules need each other in a circle: {' '.join(open_names)}")
        open_names.append(name)
        for other in dependencies(contents(files[name])):
            visit(other)
        open_names.pop()
        order[name] = files[name]

    for name in wanted:
        visit(canonical(name))
    return list(order.items())
