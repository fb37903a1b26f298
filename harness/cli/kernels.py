# SPDX-License-Identifier: GPL-2.0-or-later
"""apf kernels: which kernels there are, and making them."""

from __future__ import annotations

import argparse
import sys

from harness.artifacts import catalog
from harness.artifacts.kernels import built_kernel as builder
from harness.artifacts.store import Store
from harness.cli import options
from harness.report.terminal import Screen
from harness.report.verdict_text import columns


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = subparsers.add_parser(
        "kernels", help="list kernels, or make some",
        description="List the kernels of kernels/catalog.toml; with names or paths: make those now.",
    )  # fmt: skip
    p.add_argument("kernel", nargs="*", help="name, bzImage or kernel tree to make")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """List or build."""
    if not args.kernel:
        rows = [("kernel", "variant", "from", "")]
        rows += [(k.id, k.variant, k.source.value, k.about) for k in catalog.load().values()]
        print("\n".join(columns(rows)))
        return 0
    wanted = [catalog.find_kernel(name) for name in args.kernel]
    screen = Screen(sys.stdout)
    store = Store(progress=screen.progress)
    for entry in wanted:
        screen.scope(entry.id)
        built = builder.kernel(store, entry, screen.progress)
        screen.line(f"{entry.id}: {built.release} ({built.identity}) {built.bzimage}")
    return 0
