# SPDX-License-Identifier: GPL-2.0-or-later
"""apf validate: a patch, or a tree, against the kernel it is based on."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from harness.artifacts.catalog import VARIANTS, CatalogKernel, SourceKind, find_kernel
from harness.cli import options
from harness.errors import UsageError
from harness.report.compare_text import compare_json, full_text, mail_text
from harness.report.terminal import Screen
from harness.run.compare_kernels import compare_kernels, missing

_HELP = """\
Build a kernel with a patch (or from a tree), run the scenarios on it and on its base, and print at most forty lines fit
for a mailing list; the full report is in the run's folder (validate.txt, compare.txt, compare.json).

  apf validate --patch 0001-KVM-async_pf-whatever.patch S29
  apf validate --patch 0001-a.patch --patch 0002-b.patch --variant noio
  apf validate --patch kernels/patches/fixes/apf-halted/6.1/0001-*.patch --fixes F1
  apf validate --tree ~/linux --base stock-6.1 'S2*' S60
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "validate", "a patch or a tree against its base, in a report fit for a mailing list", _HELP,
        [options.scenario_files(), options.running()],
    )  # fmt: skip
    options.scenario_argument(p)
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--patch", action="append", type=Path, metavar="FILE",
                      help="patch to apply to the base; may be repeated, in order")  # fmt: skip
    what.add_argument("--tree", type=Path, metavar="DIR", help="kernel tree with the change in it")
    p.add_argument("--base", default="stock-6.1", metavar="K", help="kernel to compare with (default stock-6.1)")
    p.add_argument("--variant", choices=VARIANTS, default="", help="model of the patched kernel (default: the base's)")
    p.add_argument("--fixes", action="append", default=[], metavar="F",
                   help="finding that the change mends (docs/findings.md): the model predicts it mended")  # fmt: skip
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Build, compare, print the mail."""
    base = find_kernel(args.base)
    patched = _patched(args, base)
    screen = Screen(sys.stdout)
    request = options.request_of(args, (args.base, patched.id), extra=(patched,))
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
        screen.table(result)
    screen.line(f"full report: {folder}")
    if result.exit_code:
        return result.exit_code
    return 0 if all(c.green for c in comparisons) else 1


def _patched(args: argparse.Namespace, base: CatalogKernel) -> CatalogKernel:
    """:raise UsageError: a patch that is not there, or a base that is not built from source."""
    variant, fixes = args.variant or base.variant, (*base.fixes, *args.fixes)
    if args.tree is not None:
        return replace(find_kernel(str(args.tree.absolute())), id="patched", variant=variant, fixes=fixes)
    for path in args.patch:
        _check_patch(path)
    if base.source not in (SourceKind.LINUX_SOURCE, SourceKind.TREE):
        raise UsageError(f"{base.id} is not built from source, so it cannot be patched", hint="use --base stock-6.1")
    patches = tuple(p.absolute() for p in args.patch)
    return replace(base, id="patched", patches=(*base.patches, *patches), variant=variant, fixes=fixes)


def _check_patch(path: Path) -> None:
    """:raise UsageError: not a file, or one in which nothing is changed: it would be validated without being there."""
    if not path.is_file():
        raise UsageError(f"no such patch: {path}", hint="scenarios are named without an option: --patch FILE S29")
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from exc
    if not re.search(rb"^@@ .*@@", text, re.MULTILINE) and b"GIT binary patch" not in text:
        raise UsageError(f"{path} changes nothing: it has no hunk (a line that begins with @@)")
