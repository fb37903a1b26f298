# SPDX-License-Identifier: GPL-2.0-or-later
"""apf bisect-step: for `git bisect run`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.artifacts.catalog import VARIANTS, find_kernel
from harness.cli import options
from harness.errors import UsageError
from harness.report.terminal import Screen
from harness.results import Row
from harness.run.bisect import BisectState, revision_of, state_path, step
from harness.run.runner import run

_HELP = """\
Build the kernel tree as it is checked out, run scenarios on it, and answer git:

  git bisect start BAD GOOD
  git bisect run apf bisect-step --tree . S23 S29

Exit code 0: good, 1: bad, 125: skip (does not build or boot, or proves nothing after repeats).  What is known of each
revision is kept in the git directory (apf-bisect.json), so that an interrupted bisection goes on where it was.
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "bisect-step", _HELP,
        [options.scenario_files(), options.running()],
    )  # fmt: skip
    options.scenario_argument(p, "+")
    p.add_argument("--tree", type=Path, default=Path("."), metavar="DIR", help="kernel tree (default: here)")
    p.add_argument("--variant", choices=VARIANTS, default="nowait", help="model (default nowait)")
    p.add_argument("--repeats", type=options.positive, default=1, metavar="N",
                   help="rounds without a FAIL that make it good")  # fmt: skip
    p.add_argument("--state", type=Path, metavar="FILE", help="default: apf-bisect.json in the git directory")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """The answer as exit code."""
    if not options.place_of(args).boots:
        raise UsageError(f"a bisection boots another kernel at each step, and --host {args.host} has the one it runs")
    screen = Screen(sys.stdout)
    tree = args.tree.absolute()
    revision = revision_of(tree)
    entry = replace(find_kernel(str(tree)), id="bisected", variant=args.variant)
    request = options.request_of(args, ("bisected",), repeats=1, extra=(entry,))

    def perform() -> Sequence[Row]:
        result, _ = run(request, screen)
        if result.interrupted:
            raise KeyboardInterrupt
        return result.rows

    state = BisectState.load(args.state or state_path(tree))
    try:
        return int(step(state, revision, args.repeats, perform, screen.line))
    finally:
        screen.clear()
