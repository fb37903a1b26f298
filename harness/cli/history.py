# SPDX-License-Identifier: GPL-2.0-or-later
"""apf history: what runs of many nights say together."""

from __future__ import annotations

import argparse
import getpass
import socket
import sys
from pathlib import Path

from harness.cli import options
from harness.errors import UsageError
from harness.report.history_text import mail_text, night_text
from harness.report.history_trends import night_of
from harness.run.history_store import FILE, open_history

_HELP = f"""\
Take the results of all runs below a folder into its {FILE}, and say what the newest show against those before:
verdicts that have changed, since which run each bad scenario is bad and whether its kernel was another then, which
scenarios are flaky and how often, and which are not run any more.

Exit code 0: the newest runs are green; 1: they are not; 2: there is none.
"""
_EPILOG = """\
examples:
  apf history                                   the newest night of results/
  apf history --mail me@example.org | sendmail -t
  apf history --keep 20000                      remove captures beyond 20 GB: green ones first, then the oldest
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(subparsers, "history", _HELP,
                        epilog=_EPILOG)  # fmt: skip
    p.add_argument("--results", type=Path, default=Path("results"), metavar="DIR",
                   help="the folder of the runs (default: results)")  # fmt: skip
    p.add_argument("--hours", type=options.positive, default=12, metavar="N",
                   help="what began at most so long before the newest is of the same night (default 12)")  # fmt: skip
    p.add_argument("--mail", default="", metavar="ADDRESS", help="print it as a message, for sendmail -t")
    p.add_argument("--keep", type=options.positive, default=0, metavar="MIB",
                   help="remove captures until all runs take at most so much")  # fmt: skip
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Take in, tell, and remove what is too much."""
    if not args.results.is_dir():
        raise UsageError(f"{args.results} is no folder of runs")
    with open_history(args.results) as history:
        history.take_in()
        night = night_of(history.runs(), history.verdicts(), history.tonight(args.hours))
        if not night.runs:
            raise UsageError(f"{args.results} has no run yet")
        if args.mail:
            text = mail_text(night, f"{getpass.getuser()}@{socket.getfqdn()}", args.mail)
        else:
            text = night_text(night)
        sys.stdout.write(text)
        if args.keep:
            for path in history.keep(args.keep):
                print(f"removed {path}", file=sys.stderr)
    return 0 if night.green else 1
