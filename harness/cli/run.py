# SPDX-License-Identifier: GPL-2.0-or-later
"""apf run: perform scenarios and judge them."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from harness.report.terminal import Screen, table
from harness.run.request import Request
from harness.run.runner import run

DEFAULT_KERNEL = "debian-6.1"

_HELP = """\
Perform scenarios on kernels, and judge what was seen against what the model predicts.

Whatever is missing (host image, kernels) is made first and kept.  The evidence of each scenario is in
results/<run>/<scenario>+<kernel>/, with the command that repeats just this one; results/latest is the newest run.
"""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command."""
    p = subparsers.add_parser(
        "run", help="perform scenarios and judge them", description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("scenario", nargs="*", help='id ("S23"), glob ("S2*") or tag ("tag:smoke"); default: all')
    p.add_argument(
        "-k", "--kernel", action="append", default=[], metavar="K",
        help=f"name from `apf kernels`, a bzImage, or a kernel tree; may be repeated (default {DEFAULT_KERNEL})",
    )  # fmt: skip
    p.add_argument("--scenarios", action="append", default=[], type=Path, metavar="PATH",
                   help="scenario file or folder (default: tests/scenarios)")  # fmt: skip
    p.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    p.add_argument("--repeats", type=positive, default=0, metavar="N", help="how often each (default: as it says)")
    p.add_argument("--allow-unsupported", action="append", default=[], metavar="ID",
                   help="this scenario is green although this machine cannot do it; may be repeated")  # fmt: skip
    p.add_argument("--host", choices=("virtual", "local", "ssh"), default="virtual",
                   help="where the kernel under test runs (default: a virtual host)")  # fmt: skip
    p.add_argument("--hosts", type=positive, default=0, metavar="N",
                   help="virtual hosts at once (default: as processors and memory allow)")  # fmt: skip
    p.add_argument("--disk", default="", metavar="DEV", help="local host: block device that may be overwritten")
    p.set_defaults(func=main)


def positive(text: str) -> int:
    """An argparse type."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main(args: argparse.Namespace) -> int:
    """Run, show the table, say where the evidence is."""
    screen = Screen(sys.stdout)
    request = Request(
        patterns=tuple(args.scenario),
        scenario_paths=tuple(args.scenarios),
        kernels=tuple(dict.fromkeys(word for k in args.kernel for word in k.split())) or (DEFAULT_KERNEL,),
        results=args.results,
        repeats=args.repeats,
        host=args.host,
        disk=args.disk,
        allow_unsupported=frozenset(args.allow_unsupported),
        command=shlex.join(["apf", *sys.argv[1:]]),
        hosts=args.hosts,
    )
    try:
        result, folder = run(request, screen)
    finally:
        screen.clear()
    screen.line()
    for line in table(result):
        screen.line(line)
    screen.line(f"evidence: {folder}")
    screen.line(f"exit code {result.exit_code}")
    return result.exit_code
