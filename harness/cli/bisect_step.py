# SPDX-License-Identifier: GPL-2.0-or-later
"""apf bisect-step: for `git bisect run`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.artifacts.catalog import find_kernel
from harness.cli.run import positive
from harness.report.terminal import Screen
from harness.results import Row
from harness.run.bisect import BisectState, revision_of, state_path, step
from harness.run.request import Request
from harness.run.runner import run

_HELP = """\
Build the kernel tree as it is checked out, run scenarios on it, and answer git:

  git bisect start BAD GOOD
  git bisect run apf bisect-step --tree . S23 S29

Exit code 0: good, 1: bad, 125: skip (does not build or boot, or proves nothing after repeats).  What is known of each
revision is kept in the git directory (apf-bisect.json), so that an interrupted bisection goes on where it was.
"""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command."""
    p = subparsers.add_parser(
        "bisect-step", help="one step of `git bisect run`: good, bad or skip", description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("scenario", nargs="+", help='id ("S23"), glob ("S2*") or tag')
    p.add_argument("--tree", type=Path, default=Path("."), metavar="DIR", help="kernel tree (default: here)")
    p.add_argument("--variant", choices=("sync", "noio", "nowait"), default="nowait", help="model (default nowait)")
    p.add_argument("--repeats", type=positive, default=1, metavar="N", help="rounds without a FAIL that make it good")
    p.add_argument("--state", type=Path, metavar="FILE", help="default: apf-bisect.json in the git directory")
    p.add_argument("--scenarios", action="append", default=[], type=Path, metavar="PATH",
                   help="scenario file or folder (default: tests/scenarios)")  # fmt: skip
    p.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """The answer as exit code."""
    screen = Screen(sys.stdout)
    tree = args.tree.absolute()
    revision = revision_of(tree)
    entry = replace(find_kernel(str(tree)), id="bisected", variant=args.variant)
    request = Request(
        patterns=tuple(args.scenario),
        scenario_paths=tuple(args.scenarios),
        kernels=("bisected",),
        results=args.results,
        repeats=1,
        command=shlex.join(["apf", *sys.argv[1:]]),
        extra=(entry,),
    )

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
