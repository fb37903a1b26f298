# SPDX-License-Identifier: GPL-2.0-or-later
"""apf compare: the same scenarios on two kernels, side by side."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from harness.cli.run import positive
from harness.report.compare_text import compare_json, full_text
from harness.report.terminal import Screen, table
from harness.run.compare_kernels import compare_kernels, missing
from harness.run.request import Request

_HELP = """\
Run the same scenarios on two kernels, judge each against its own model, and show where they behave differently and
whether the models say that they should: outcome per item, who issues the reads, repeated faults, how long the vCPU
thread was blocked, counters.

Exit code 0: both green and no difference that the models do not predict; 1 otherwise.
"""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command."""
    p = subparsers.add_parser(
        "compare", help="the same scenarios on two kernels, side by side", description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("a", nargs="?", default="debian-6.1", metavar="A", help="first kernel (default debian-6.1)")
    p.add_argument("b", nargs="?", default="noio-6.1", metavar="B", help="second kernel (default noio-6.1)")
    p.add_argument("scenario", nargs="*", help='id ("S23"), glob ("S2*") or tag ("tag:smoke"); default: all')
    p.add_argument("--scenarios", action="append", default=[], type=Path, metavar="PATH",
                   help="scenario file or folder (default: tests/scenarios)")  # fmt: skip
    p.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    p.add_argument("--allow-unsupported", action="append", default=[], metavar="ID",
                   help="this scenario is green although this machine cannot do it; may be repeated")  # fmt: skip
    p.add_argument("--hosts", type=positive, default=0, metavar="N",
                   help="virtual hosts at once (default: as processors and memory allow)")  # fmt: skip
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Run both, print the differences, leave compare.txt and compare.json in the run's folder."""
    screen = Screen(sys.stdout)
    request = Request(
        patterns=tuple(args.scenario),
        scenario_paths=tuple(args.scenarios),
        kernels=(args.a, args.b),
        results=args.results,
        allow_unsupported=frozenset(args.allow_unsupported),
        command=shlex.join(["apf", *sys.argv[1:]]),
        hosts=args.hosts,
    )
    try:
        result, folder, comparisons = compare_kernels(request, screen)
    finally:
        screen.clear()
    text = full_text(args.a, args.b, comparisons)
    (folder / "compare.txt").write_text(text)
    (folder / "compare.json").write_text(compare_json(args.a, args.b, comparisons) + "\n")
    screen.line()
    for line in table(result):
        screen.line(line)
    screen.line()
    for line in text.splitlines():
        screen.line(line)
    for key in missing(result, comparisons, args.a):
        screen.line(f"{key.scenario}: not compared, because it was not performed on both")
    screen.line(f"evidence: {folder}")
    if result.exit_code:
        return result.exit_code
    return 0 if all(c.green for c in comparisons) else 1
