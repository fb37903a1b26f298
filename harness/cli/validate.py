# SPDX-License-Identifier: GPL-2.0-or-later
"""apf validate: a patch, or a tree, against the kernel it is based on."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from harness.artifacts.catalog import VARIANTS, CatalogKernel, SourceKind, find_kernel
from harness.artifacts.kernels.kernel_source import inspect_revision
from harness.artifacts.kernels.patches import changes_something, expand, split_mbox
from harness.artifacts.scratch import scratch_folder
from harness.cli import options
from harness.errors import CatalogError, UsageError
from harness.report.compare_text import compare_json, full_text, mail_text
from harness.report.terminal import Screen
from harness.run.baseline import compare_with_baseline, read_baseline
from harness.run.compare_kernels import compare_kernels, compared_code, make_first, missing
from harness.run.run_folder import RunFolder

DEFAULT_BASE = "stock-6.1"

_HELP = """\
Build a kernel with a patch (or from a tree), run the scenarios on it and on its base, and print at most forty lines fit
for a mailing list; the full report is in the run's folder (validate.txt, compare.txt, compare.json).

  apf validate --patch 0001-KVM-async_pf-whatever.patch S29
  apf validate --patch 0001-a.patch --patch 0002-b.patch --variant noio
  apf validate --patch v3_20261126_somebody_series.mbx --base stock-7.3
  apf validate --tree ~/linux --base v7.3 S29
  apf validate --patch kernels/patches/fixes/apf-halted/6.1/0001-*.patch --fixes F1
  apf validate --tree ~/linux --base stock-6.1 'S2*' S60

With --baseline RUN the base is not run: its verdicts are those of an earlier run.  So a machine that has one kernel can
be held against it, before and after its kernel was changed; nothing is built or booted for that.

  apf run --host ssh:bigbox                                         the baseline: results/<run>
  apf validate --host ssh:bigbox --baseline results/<run>           after bigbox was booted with the other kernel
  apf validate --kernel debian-6.12 --baseline results/<run>        any kernel

Exit code 0: both green and no difference that the models do not predict; 1 otherwise.
"""


_SHOWN = 8
"""Patches of a series that the mail names: it has forty lines."""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "validate", _HELP,
        [options.scenario_files(), options.running()],
    )  # fmt: skip
    options.scenario_argument(p)
    what = p.add_mutually_exclusive_group()
    what.add_argument("--patch", action="append", type=Path, metavar="FILE",
                      help="patch, mailbox (b4, git format-patch) or folder of a series; repeatable")  # fmt: skip
    what.add_argument("--tree", type=Path, metavar="DIR", help="kernel tree with the change in it")
    what.add_argument("-k", "--kernel", default="", metavar="K", help="with --baseline: this kernel")
    p.add_argument("--base", default="", metavar="K",
                   help="kernel to compare with, or a revision of --tree (default stock-6.1; of --baseline the only"
                   " one)")  # fmt: skip
    p.add_argument("--baseline", type=Path, metavar="RUN", help="folder of the run to compare with")
    p.add_argument("--variant", choices=VARIANTS, default="", help="model of the patched kernel (default: the base's)")
    p.add_argument("--fixes", action="append", default=[], metavar="F",
                   help="finding that the change mends (docs/findings.md): the model predicts it mended")  # fmt: skip
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Build, compare, print the mail."""
    if args.baseline is not None:
        with scratch_folder("apf-series-") as scratch:
            return _against_baseline(args, scratch)
    if not args.patch and args.tree is None:
        raise UsageError("what is to be validated? --patch, --tree, or --baseline for a kernel that is there already")
    args.base = args.base or DEFAULT_BASE
    with scratch_folder("apf-series-") as scratch:
        return _validate(args, scratch)


def _validate(args: argparse.Namespace, scratch: Path) -> int:
    """The command; what a mailbox holds lies in ``scratch`` as files."""
    base = _base(args)
    patched = _patched(args, base, scratch)
    screen = Screen(sys.stdout)
    request = options.request_of(args, (base.id, patched.id), extra=(base, patched))
    try:
        # A series that does not apply, or does not build, is told before the base's scenarios take their time.
        make_first(request, patched.id, screen)
        result, folder, comparisons = compare_kernels(request, screen)
    finally:
        screen.clear()
    what = ", ".join(p.name for p in args.patch) if args.patch else str(args.tree)
    mail = mail_text(args.base, f"{args.base} with {what}" if args.patch else what, comparisons,
                     [f"KVM asynchronous page faults: {what}", *_series(base, patched)])  # fmt: skip
    files = RunFolder(folder)
    files.write_text("validate.txt", mail)
    files.write_text("compare.txt", full_text(args.base, patched.id, comparisons))
    files.write_text("compare.json", compare_json(args.base, patched.id, comparisons) + "\n")
    screen.line()
    for line in mail.splitlines():
        screen.line(line)
    left = missing(result, comparisons)
    if left or not comparisons:
        screen.table(result)
    screen.line(f"full report: {folder}")
    return compared_code(result, comparisons)


def _series(base: CatalogKernel, patched: CatalogKernel) -> list[str]:
    """The patches by name, where there are several: what a mailbox holds is not said by its name."""
    names = [path.name for path in expand(patched.patches[len(base.patches) :])]
    shown = names if len(names) <= _SHOWN else [*names[: _SHOWN - 1], f"and {len(names) - _SHOWN + 1} more"]
    return [f"  {name}" for name in shown] if len(names) > 1 else []


def _against_baseline(args: argparse.Namespace, scratch: Path) -> int:
    """One kernel, performed now, against a run that was captured before."""
    extra: tuple[CatalogKernel, ...] = ()
    kernels = options.kernels_of(args, [args.kernel] if args.kernel else [])
    if args.patch or args.tree is not None:
        source = argparse.Namespace(**{**vars(args), "base": args.base or DEFAULT_BASE})
        extra = (_patched(args, _base(source), scratch),)
        kernels = (extra[0].id,)
    else:
        if args.variant or args.fixes:
            raise UsageError("--variant and --fixes are of what --patch or --tree makes: a named kernel has its model")
        if options.place_of(args).boots and not args.kernel:
            raise UsageError("which kernel is to be held against the baseline? --kernel, --patch, --tree, or --host")
    screen = Screen(sys.stdout)
    request = options.request_of(args, kernels, extra=extra)
    baseline = read_baseline(args.baseline, args.base)
    try:
        found = compare_with_baseline(request, baseline, screen)
    finally:
        screen.clear()
    then, now = f"{baseline.kernel} of {args.baseline}", request.names[0]
    mail = mail_text(then, now, found.comparisons, [f"KVM asynchronous page faults: {now}"])
    files = RunFolder(found.folder)
    files.write_text("validate.txt", mail)
    files.write_text("compare.txt", full_text(then, now, found.comparisons))
    files.write_text("compare.json", compare_json(then, now, found.comparisons) + "\n")
    screen.line()
    for line in (*mail.splitlines(), *found.left_out):
        screen.line(line)
    if found.result.exit_code:
        screen.table(found.result)
    screen.line(f"full report: {found.folder}")
    return found.exit_code


def _base(args: argparse.Namespace) -> CatalogKernel:
    """The kernel to compare with: a name, a path, or a revision of the tree that is validated.

    :raise CatalogError: none of these.
    """
    try:
        return find_kernel(args.base)
    except CatalogError:
        if args.tree is None or not (args.tree / ".git").exists():
            raise
        tree = find_kernel(str(args.tree.absolute()))
        assert tree.path is not None
        state = inspect_revision(tree.path, args.base)
        return replace(tree, id=args.base, revision=args.base, about=state.name)


def _patched(args: argparse.Namespace, base: CatalogKernel, scratch: Path) -> CatalogKernel:
    """:raise UsageError: a patch that is not there, or a base that is not built from source."""
    variant, fixes = args.variant or base.variant, (*base.fixes, *args.fixes)
    if args.tree is not None:
        return replace(find_kernel(str(args.tree.absolute())), id="patched", variant=variant, fixes=fixes)
    found: list[Path] = []
    for number, path in enumerate(args.patch):
        if path.is_dir():
            found += expand([path.absolute()])
            continue
        _check_patch(path)
        (scratch / str(number)).mkdir()
        found += split_mbox(path.absolute(), scratch / str(number))
    if base.source not in (SourceKind.LINUX_SOURCE, SourceKind.TREE):
        raise UsageError(f"{base.id} is not built from source, so it cannot be patched", hint="use --base stock-6.1")
    return replace(base, id="patched", patches=(*base.patches, *found), variant=variant, fixes=fixes)


def _check_patch(path: Path) -> None:
    """:raise UsageError: not a file, or one in which nothing is changed: it would be validated without being there."""
    if not path.is_file():
        raise UsageError(f"no such patch: {path}", hint="scenarios are named without an option: --patch FILE S29")
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from exc
    if not changes_something(text) and b"base64" not in text:
        raise UsageError(f"{path} changes nothing: it has no hunk (a line that begins with @@)")
