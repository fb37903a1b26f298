# SPDX-License-Identifier: GPL-2.0-or-later
"""apf compare: the same scenarios on two kernels, side by side."""

from __future__ import annotations

import argparse
import sys

from harness.cli import options
from harness.report.compare_text import compare_json, full_text
from harness.report.page.performance import significance
from harness.report.terminal import Screen
from harness.run.compare_kernels import compare_kernels, compared_code, missing
from harness.run.drawings import read_latencies
from harness.run.report_folder import PAGE
from harness.run.run_folder import RunFolder

_HELP = """\
Run the same scenarios on two kernels, judge each against its own model, and show where they behave differently and
whether the models say that they should: outcome per item, who issues the reads, repeated faults, how long the vCPU
thread was blocked, counters.

Exit code 0: both green and no difference that the models do not predict; 1 otherwise.
"""
_EPILOG = """\
examples:
  apf compare                              all scenarios on debian-6.1 and noio-6.1
  apf compare stock-6.1 noio-6.1 S28 S29   two scenarios, on two kernels built from one source
  apf compare debian-6.1 ~/linux 'S2*'     a kernel tree of one's own against Debian's kernel
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "compare", _HELP,
        [options.scenario_files(), options.running()], _EPILOG,
    )  # fmt: skip
    p.add_argument("a", nargs="?", default="debian-6.1", metavar="A", help="first kernel (default debian-6.1)")
    p.add_argument("b", nargs="?", default="noio-6.1", metavar="B", help="second kernel (default noio-6.1)")
    options.scenario_argument(p)
    p.set_defaults(func=main)


_NAMED = 8
"""Scenarios that were not compared, for people; results.json has all."""


def main(args: argparse.Namespace) -> int:
    """Run both, print the differences, leave compare.txt and compare.json in the run's folder."""
    screen = Screen(sys.stdout)
    request = options.request_of(args, (args.a, args.b))
    try:
        result, folder, comparisons = compare_kernels(request, screen)
    finally:
        screen.clear()
    text = full_text(args.a, args.b, comparisons)
    RunFolder(folder).write_text("compare.txt", text)
    RunFolder(folder).write_text("compare.json", compare_json(args.a, args.b, comparisons) + "\n")
    screen.line()
    screen.table(result)
    screen.line()
    for line in text.splitlines():
        screen.line(line)
    times = {
        k: [read_latencies(folder / row.folder) for row in result.rows if row.key.kernel == k] for k in (args.a, args.b)
    }
    for line in ("", "measured times of asynchronous page faults:", *significance(times)):
        screen.line(line)
    if left_out := missing(result, comparisons):
        more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        screen.line(f"not compared, because not performed on both: {', '.join(left_out[:_NAMED])}{more}")
    screen.line(f"evidence: {folder}, page: {folder / PAGE}")
    options.annotate(result, screen.line)
    return compared_code(result, comparisons)
