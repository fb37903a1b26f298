# SPDX-License-Identifier: GPL-2.0-or-later
"""apf kernels: which kernels there are, and making them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from harness.artifacts import catalog
from harness.artifacts.catalog import CatalogKernel, SourceKind
from harness.artifacts.debian import offered_kernels
from harness.artifacts.kernels import built_kernel as builder
from harness.artifacts.store import Store
from harness.cli import options
from harness.errors import InfraFault, ModelError
from harness.model.kernel_changes import READ_RELEASES
from harness.report.terminal import Screen
from harness.report.verdict_text import columns
from harness.run.model_named import model_of_entry

_HELP = """\
List the kernels of kernels/catalog.toml and the packaged ones that this machine's Debian mirrors offer (the newest of
each series; "debian-6.18.5" names one level, "latest" the newest of all); with names or paths: make those now.
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(subparsers, "kernels", _HELP)
    p.add_argument("kernel", nargs="*", help="name, bzImage or kernel tree to make")
    p.add_argument("--refresh", action="store_true", help="ask the mirrors anew what they offer")
    p.add_argument("--levels", action="store_true", help="list every level that is offered, not the newest of a series")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """List or build."""
    screen = Screen(sys.stderr if not args.kernel else sys.stdout)
    store = Store(progress=screen.progress)
    if args.refresh:
        offered_kernels.offer(store, refresh=True, progress=screen.progress)
    if not args.kernel:
        _list(store, screen, levels=args.levels)
        return 0
    wanted = [catalog.find_kernel(name, progress=screen.progress) for name in args.kernel]
    for entry in wanted:
        screen.scope(entry.id)
        built = builder.kernel(store, entry, screen.progress)
        screen.line(f"{entry.id}: {built.release} ({built.identity}) {built.bzimage}")
    return 0


def _list(store: Store, screen: Screen, *, levels: bool) -> None:
    """Print the table: the catalogue's kernels, then what is offered and has no name of its own there."""
    entries = catalog.load()
    notes = []
    levels_of: dict[tuple[str, str], str] = {}
    try:
        offer = offered_kernels.offer(store, progress=screen.progress)
        found = {f"debian-{kernel.release}": kernel for kernel in offer.kernels} if levels else offer.series()
        entries |= {name: catalog.offered_entry(name, kernel) for name, kernel in found.items() if name not in entries}
        levels_of = {(k.suite, k.series): k.release for k in sorted(offer.kernels, key=lambda k: k.order)}
        newest = offer.named(offered_kernels.LATEST)
        notes += [f"latest: debian-{newest.series} ({newest.release})"] if newest else []
        notes += [f"{suite}: {why}" for suite, why in offer.without.items()]
        notes += [f"{series}: in parts only, the mirrors lack {what}" for series, what in offer.lacking.items()]
    except InfraFault as error:
        notes.append(f"what the mirrors offer is not known: {error.message}")
    finally:
        screen.clear()
    rows: list[tuple[str, ...]] = [("kernel", "release", "model", "in store", "from", "")]
    rows += [_row(store, entry, levels_of) for entry in entries.values()]
    print("\n".join([*columns(rows), *([""] if notes else []), *notes]))


def _row(store: Store, entry: CatalogKernel, levels_of: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    """One kernel: name, release, model and how it is known, whether it can be booted at once, source, words.

    :param levels_of: by suite and series the newest level offered, which is what a package of the catalogue is.
    """
    stored = "yes" if builder.is_stored(store, entry) else "no"
    try:
        kernel = model_of_entry(entry)
    except ModelError as error:
        return entry.id, entry.release, f"none: {error.message}", stored, entry.source.value, entry.about
    read = any(kernel.release[:2] == read[:2] for read in READ_RELEASES)
    model = kernel.name + ("" if read else " (not read)")
    series = ".".join(str(n) for n in kernel.release[:2])
    level = levels_of.get((entry.suite, series), "") if entry.source is SourceKind.PACKAGE else ""
    return entry.id, entry.release or level or kernel.version, model, stored, entry.source.value, entry.about
