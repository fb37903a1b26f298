# SPDX-License-Identifier: GPL-2.0-or-later
"""apf validate: a patch, or a tree, against the kernel it is based on."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from harness.artifacts.catalog import CatalogKernel, SourceKind, find_kernel
from harness.errors import UsageError
from harness.report.compare_text import compare_json, full_text, mail_text
from harness.report.terminal import Screen, table
from harness.run.compare_kernels import compare_kernels, missing
from harness.run.request import Request

_HELP = """\
Build a kernel with a patch (or from a tree), run the scenarios on it and on its base, and print at most forty lines fit
for a mailing list; the full report is in the run's folder (validate.txt, compare.txt, compare.json).

  apf validate --patch 0001-KVM-async_pf-whatever.patch
  apf validate --tree ~/linux --base stock-6.1 'S2*' S60
"""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command."""
    p = subparsers.add_parser(
        "validate", help="a patch or a tree against its base, in a report fit for a mailing list", description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("scenario", nargs="*", help='id ("S23"), glob ("S2*") or tag; default: all')
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--patch", nargs="+", type=Path, metavar="FILE", help="patches to apply to the base, in order")
    what.add_argument("--tree", type=Path, metavar="DIR", help="kernel tree with the change in it")
    p.add_argument("--base", default="stock-6.1", metavar="K", help="kernel to compare with (default stock-6.1)")
    p.add_argument("--variant", choices=("sync", "noio", "nowait"), default="", help="model of the patched kernel "
                   "(default: the base's)")  # fmt: skip
    p.add_argument("--scenarios", action="append", default=[], type=Path, metavar="PATH",
                   help="scenario file or folder (default: tests/scenarios)")  # fmt: skip
    p.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Build, compare, print the mail."""
    base = find_kernel(args.base)
    patched = _patched(args, base)
    screen = Screen(sys.stdout)
    request = Request(
        patterns=tuple(args.scenario),
        scenario_paths=tuple(args.scenarios),
        kernels=(args.base, patched.id),
        results=args.results,
        command=shlex.join(["apf", *sys.argv[1:]]),
        extra=(patched,),
    )
    try:
        result, folder, comparisons = compare_kernels(request, screen)
    finally:
        screen.clear()
    what = ", ".join(p.name for p in args.patch) if args.patch else str(args.tree)
    mail = mail_text(args.base, f"{args.base} with {what}" if args.patch else what, comparisons,
                     [f"KVM asynchronous page faults: {what}"])  # fmt: skip
    (folder / "validate.txt").write_text(mail)
    (folder / "compare.txt").write_text(full_text(args.base, patched.id, comparisons))
    (folder / "compare.json").write_text(compare_json(args.base, patched.id, comparisons) + "\n")
    screen.line()
    for line in mail.splitlines():
        screen.line(line)
    left = missing(result, comparisons, args.base)
    if left or not comparisons:
        for line in table(result):
            screen.line(line)
    screen.line(f"full report: {folder}")
    if result.exit_code:
        return result.exit_code
    return 0 if all(c.green for c in comparisons) else 1


def _patched(args: argparse.Namespace, base: CatalogKernel) -> CatalogKernel:
    """:raise UsageError: a patch that is not there, or a base that is not built from source."""
    variant = args.variant or base.variant
    if args.tree is not None:
        return replace(find_kernel(str(args.tree.absolute())), id="patched", variant=variant)
    absent = [str(p) for p in args.patch if not p.is_file()]
    if absent:
        raise UsageError(f"no such patch: {', '.join(absent)}")
    if base.source not in (SourceKind.LINUX_SOURCE, SourceKind.TREE):
        raise UsageError(f"{base.id} is not built from source, so it cannot be patched", hint="use --base stock-6.1")
    patches = tuple(p.absolute() for p in args.patch)
    return replace(base, id="patched", patches=(*base.patches, *patches), variant=variant)
