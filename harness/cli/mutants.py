# SPDX-License-Identifier: GPL-2.0-or-later
"""apf mutants: is the harness able to fail?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from harness.cli import options
from harness.report.mutants_text import MutantLine, mutants_table
from harness.report.terminal import Screen
from harness.run.mutant_trials import KERNEL, Mutant, Trial, choose, load_mutants, run_mutants
from harness.status import Status

_HELP = """\
Try the harness on a kernel with one deliberate mistake at a time (kernels/patches/mutants/MUTANTS.toml).

Each mutant runs under the scenarios that should catch it, until one does; the unmutated kernel must be green under all
of them.  A mutant that survives is a hole in the harness.  Exit code 0: control green, every mutant caught.
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "mutants", "kernels with one deliberate fault each: every one must be caught", _HELP,
        [options.scenario_files(), options.running()],
    )  # fmt: skip
    p.add_argument("mutant", nargs="*", help="name or number (default: all)")
    p.add_argument("--list", action="store_true", help="list the mutants and stop")
    p.add_argument("--every", action="store_true", help="run every scenario of each mutant: the whole table")
    p.add_argument("--no-control", action="store_true", help="leave out the unmutated kernel")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Run, print the table, leave it as mutants.txt and mutants.json in the last run's folder."""
    mutants = choose(load_mutants(), args.mutant)
    screen = Screen(sys.stdout)
    if args.list:
        for m in mutants:
            screen.line(f"{m.number:>3}  {m.name:<20} {m.about} [{m.imitates}]  {' '.join(m.scenarios)}")
        return 0
    request = options.request_of(args, (KERNEL,))
    try:
        trials, folders, complete = run_mutants(request, screen, mutants, every=args.every, control=not args.no_control)
    finally:
        screen.clear()
    lines = [_line(m, trials) for m in mutants]
    control = [(t.scenario, _cell(t)) for t in trials if t.mutant is None]
    text = mutants_table(lines, control)
    (folders[-1] / "mutants.txt").write_text("\n".join(text) + "\n")
    (folders[-1] / "mutants.json").write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    screen.line()
    for row in text:
        screen.line(row)
    screen.line(f"evidence: {', '.join(map(str, folders))}")
    if not complete:
        return 130
    green = all(t.row is not None and t.row.status is Status.PASS for t in trials if t.mutant is None)
    return 0 if green and all(line.caught_by for line in lines) else 1


def _line(mutant: Mutant, trials: Sequence[Trial]) -> MutantLine:
    mine = [t for t in trials if t.mutant is not None and t.mutant.name == mutant.name]
    return MutantLine(
        name=mutant.name,
        number=mutant.number,
        about=mutant.about,
        imitates=mutant.imitates,
        cells=tuple((t.scenario, _cell(t)) for t in mine),
        caught_by=next((t.rule for t in mine if t.caught), ""),
    )


def _cell(trial: Trial) -> str:
    if trial.row is None:
        return "no verdict"
    return f"{trial.row.status} ({trial.rule})" if trial.caught else trial.row.status.value
