# SPDX-License-Identifier: GPL-2.0-or-later
"""``apf citations``: how well the model knows a kernel's source."""

from __future__ import annotations

import argparse
import re
from contextlib import ExitStack
from pathlib import Path

from harness.artifacts.debian.packages import Package, Packages, with_packages
from harness.artifacts.kernels import citations
from harness.artifacts.store import Store
from harness.cli import COMMANDS, options
from harness.errors import UsageError
from harness.progress import silent

_PACKAGE = re.compile(r"([\w-]+)/(linux-source-[\d.]+)")


def add(subparsers: options.Subparsers) -> None:
    """Register ``apf citations``."""
    parser = subparsers.add_parser(
        "citations",
        help=COMMANDS["citations"],
        description="Compare the functions that the model cites with the trees that it was made from.",
    )
    kinds = "a kernel tree, a linux-source .deb, or SUITE/PACKAGE as in bookworm/linux-source-6.1"
    parser.add_argument("source", nargs="*", metavar="SOURCE", help=kinds)
    parser.add_argument("--write", action="store_true", help="record the tree as read (kernels/citations.json)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each source.

    :raise UsageError: no source.  :raise CatalogError: a source is no kernel's.
    """
    if not args.source:
        raise UsageError("name a source", hint=f"read were {', '.join(citations.known())}")
    for name in args.source:
        with ExitStack() as stack:
            release, source = stack.enter_context(citations.open_source(_place(name)))
            prints = citations.fingerprints(source, release)
            missing = [function for function, mark in prints.items() if not mark and ":" in function]
            print(citations.compare(release, prints, citations.known()))
            if args.write and missing:
                raise UsageError(f"{release} is not recorded: functions that are cited for it are not there")
            if args.write:
                citations.record(release, prints)
    return 0


def _place(name: str) -> Path:
    packaged = _PACKAGE.fullmatch(name)
    if packaged is None or Path(name).exists():
        return Path(name)
    return download(packaged[1], packaged[2])


def download(suite: str, package: str) -> Path:
    """The .deb of a linux-source package, from the machine's mirrors."""

    def make(packages: Packages) -> Path:
        wanted: list[Package] = [p for p in packages.build_of(package) if p.name == package]
        return packages.download(wanted)[0]

    return with_packages(Store(), suite, silent, make)
