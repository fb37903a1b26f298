# SPDX-License-Identifier: GPL-2.0-or-later
"""apf list: which scenarios there are."""

from __future__ import annotations

import argparse

from harness.cli import options
from harness.run.scenario_sources import default_scenarios, read_scenario_files
from harness.run.selection import choose
from harness.scenario.load import refused_error


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "list",
        "List scenarios: id, title, tags, and the variants they are for.\n\n  apf list tag:smoke --why",
        [options.scenario_files()],
    )  # fmt: skip
    options.scenario_argument(p)
    p.add_argument("--why", action="store_true", help="also print what each is good for")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Print them.  :raise ScenarioError: behind all others, what is wrong with files that were refused."""
    patterns, paths = options.meant(args)
    chosen = choose(read_scenario_files(paths or [default_scenarios()]), patterns)
    scenarios = chosen.scenarios
    width = max(len(s.id) for s in scenarios)
    for s in scenarios:
        only = f"  (only {', '.join(s.variants)})" if s.variants else ""
        print(f"{s.id:<{width}}  {s.title}  [{', '.join(s.tags)}]{only}")
        if args.why and s.why:
            print(f"{'':<{width}}  {s.why}")
    if chosen.refused:
        raise refused_error(chosen.refused)
    return 0
