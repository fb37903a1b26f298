# SPDX-License-Identifier: GPL-2.0-or-later
"""apf matrix: scenarios on many kernels, as a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.debian import offered_kernels
from harness.artifacts.store import Store
from harness.cli import options
from harness.errors import UsageError
from harness.report.matrix_text import matrix_text, put_section
from harness.report.terminal import Screen
from harness.run.kernel_matrix import run_matrix
from harness.run.whole_file import write_whole

PAGE = layout.REPOSITORY / "docs/kernels.md"

_HELP = """\
Perform scenarios on many kernels, one kernel after the other, and write the table of outcomes into a page, with what
changed from kernel to kernel and which scenario shows it.

What lies below --results already, performed with the same plan on the same kernel, is not performed again: a matrix
that was interrupted goes on where it was.

A cell is green by the rules of `apf run`: UNSUPPORTED with --allow-unsupported ID, FINDING with --accept-findings FILE.
Exit code: 0 every cell is green, 1 one is not, 3 errors, cells without a verdict, or a machine that is not as it was
before.
"""
_EPILOG = """\
examples:
  apf matrix --kernels debian-6.1,debian-6.12,debian-7.3
  apf matrix 'S2*' --kernels all --output /tmp/kernels.md
  apf matrix 'S2*' --host ssh:bigbox --output /tmp/bigbox.md       the kernel that bigbox has
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "matrix", _HELP,
        [options.scenario_files(), options.running()], _EPILOG,
    )  # fmt: skip
    options.scenario_argument(p)
    p.add_argument("--kernels", default="", metavar="A,B,...",
                   help='in the order of the columns; "all": the newest of each packaged series; without: the one that '
                   "the host has")  # fmt: skip
    p.add_argument("--output", type=Path, default=PAGE, metavar="FILE",
                   help="page whose matrix is replaced, or which gets one (default: docs/kernels.md)")  # fmt: skip
    p.add_argument("--no-run", action="store_true", help="perform nothing: write the page from what is there")
    p.add_argument("--judge-again", action="store_true", help="hold the kept captures against today's model")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Run what is missing, write the page; the exit code is that of a run that has performed all cells."""
    screen = Screen(sys.stdout)
    request = options.request_of(args, _kernels(args, screen), repeats=1)
    try:
        matrix = run_matrix(request, screen, perform=not args.no_run, judge_again=args.judge_again)
    finally:
        screen.clear()
    try:
        page = args.output.read_text() if args.output.is_file() else ""
        write_whole(args.output, put_section(page, matrix_text(matrix.columns, matrix.rows, matrix.steps)))
    except OSError as error:
        raise UsageError(f"{args.output} cannot be written: {error.strerror}") from error
    screen.line(f"{len(matrix.rows)} scenarios on {len(matrix.columns)} kernels: {args.output}")
    for line in (*matrix.result.to_retire, *matrix.result.troubles):
        screen.line(line)
    for row in matrix.result.rows:
        if not matrix.result.is_green(row):
            screen.line(f"{row.key}: {row.verdict.word}")
    for key in matrix.result.missing:
        screen.line(f"{key}: no verdict")
    return matrix.exit_code


def _kernels(args: argparse.Namespace, screen: Screen) -> tuple[str, ...]:
    """The names that are meant.  :raise UsageError: none."""
    if args.kernels == "all":
        return tuple(offered_kernels.offer(Store(progress=screen.progress), progress=screen.progress).series())
    names = tuple(dict.fromkeys(name.strip() for name in args.kernels.split(",") if name.strip()))
    if not names and options.place_of(args).boots:
        raise UsageError("--kernels names no kernel", hint="--kernels debian-6.1,debian-7.3")
    return names
