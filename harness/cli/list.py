# SPDX-License-Identifier: GPL-2.0-or-later
"""apf list: which scenarios there are."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.run.scenario_sources import default_scenarios, read_scenarios
from harness.run.selection import select


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command."""
    p = subparsers.add_parser("list", help="list the scenarios", description="List scenarios, their tags and titles.")
    p.add_argument("scenario", nargs="*", help='id, glob ("S2*") or tag ("tag:smoke"); default: all')
    p.add_argument("--scenarios", action="append", default=[], type=Path, metavar="PATH",
                   help="scenario file or folder (default: tests/scenarios)")  # fmt: skip
    p.add_argument("--why", action="store_true", help="also print what each is good for")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Print them."""
    scenarios = select(read_scenarios(args.scenarios or [default_scenarios()]), args.scenario)
    width = max(len(s.id) for s in scenarios)
    for s in scenarios:
        only = f"  (only {', '.join(s.variants)})" if s.variants else ""
        print(f"{s.id:<{width}}  {s.title}  [{', '.join(s.tags)}]{only}")
        if args.why and s.why:
            print(f"{'':<{width}}  {s.why}")
    return 0
