# SPDX-License-Identifier: GPL-2.0-or-later
"""apf run: perform scenarios and judge them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from harness.cli import options
from harness.report.profile_text import profile_text
from harness.report.terminal import Screen
from harness.run.report_folder import PAGE
from harness.run.runner import run
from harness.run.step_times import step_times

_HELP = """\
Perform scenarios on kernels, and judge what was seen against what the model predicts.

Whatever is missing (host image, kernels) is made first and kept.  The evidence of each scenario is in
results/<run>/<scenario>+<kernel>/, with the command that repeats just this one; results/latest is the newest run.
"""
_EPILOG = """\
examples:
  apf run S23                                 one scenario on debian-6.1
  apf run 'S2*' tag:smoke -k noio-6.1         several, on another kernel
  apf run S28 --kernel ~/linux                on a kernel tree of one's own, built first
  apf run S60 --repeats 20                    one that may race, often
  sudo apf run --host local --disk /dev/sdX   on this very machine and its kernel
  apf run tag:smoke --host ssh:bigbox         on a machine of the lab (docs/lab.md)

Exit code: 0 all green, 1 a scenario failed, was inconclusive or unsupported, or showed a
finding, 2 bad usage or input, 3 our or the machine's fault.
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "run", _HELP,
        [options.scenario_files(), options.running()], _EPILOG,
    )  # fmt: skip
    options.scenario_argument(p)
    p.add_argument(
        "-k", "--kernel", action="append", default=[], metavar="K",
        help="name from `apf kernels`, a bzImage, or a kernel tree; may be repeated "
        f"(default {options.DEFAULT_KERNEL})",
    )  # fmt: skip
    p.add_argument(
        "--repeats", type=options.positive, default=0, metavar="N", help="how often each (default: as it says)"
    )
    p.add_argument("--profile", action="store_true", help="at the end, say where the time went, step by step")
    p.add_argument(
        "--wrong-kernel", action="store_true",
        help="the kernel has a mistake planted in it: a host that falls silent is believed at once, one on which"
        " something went otherwise than predicted is not used again, and no page is drawn",
    )  # fmt: skip
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Run, show the table, say where the evidence is."""
    screen = Screen(sys.stdout)
    kernels = options.kernels_of(args, [word for k in args.kernel for word in k.split()])
    request = replace(options.request_of(args, kernels, repeats=args.repeats), wrong_kernel=args.wrong_kernel)
    try:
        result, folder = run(request, screen)
    finally:
        screen.clear()
    screen.line()
    screen.table(result)
    if args.profile:
        screen.line()
        screen.line(profile_text(list(step_times(folder, result.rows)), result.seconds))
        screen.line()
    screen.line(f"evidence: {folder}, page: {folder / PAGE}")
    options.annotate(result, screen.line)
    screen.line(f"exit code {result.exit_code}")
    return result.exit_code
