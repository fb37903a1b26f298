# SPDX-License-Identifier: GPL-2.0-or-later
"""apf mutants: is the harness able to fail?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.artifacts.kernels.built_kernel import kernel
from harness.artifacts.store import Store, default_root
from harness.cli import options
from harness.report.mutants_text import MutantLine, mutants_table
from harness.report.terminal import Screen
from harness.run.mutant_points import load_points, run_points
from harness.run.mutant_trials import CATALOG, KERNEL, Catch, Mutant, Trial, catch_of, choose, load_mutants, run_mutants
from harness.run.request import Request
from harness.run.scenario_sources import default_scenarios, read_scenarios
from harness.run.selection import select
from harness.status import Status

_HELP = """\
Try the harness on a kernel with one deliberate mistake at a time.

Without --kernel: the mistakes written by hand (kernels/patches/mutants/MUTANTS.toml), each under the scenarios that
should catch it.  With a kernel whose conditions and effects can all be made wrong (points-6.1, kernels/mutate.toml):
every one of them, each under the scenarios that were seen to reach it.  The unmutated kernel must be green under all.

A mutant is "caught" by a rule that names its fault; "caught otherwise" is a FAIL that does not name it; "SURVIVED" and
"not run" are holes in the harness.  Exit code 0: the unmutated kernel green, every mutant caught by name or equivalent.
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "mutants", "kernels with one deliberate fault each: every one must be caught", _HELP,
        [options.scenario_files(), options.running()],
    )  # fmt: skip
    p.add_argument("mutant", nargs="*", help="name, number, or function of systematic mutants (default: all)")
    p.add_argument("--kernel", default=KERNEL, help=f"kernel with mutants in it (default: {KERNEL})")
    p.add_argument("--file", type=Path, default=CATALOG, metavar="TOML", help="the mistakes written by hand")
    p.add_argument("--with", dest="scenario", action="append", default=[], metavar="SCENARIO",
                   help="systematic mutants: choose from these scenarios only; may be repeated")  # fmt: skip
    p.add_argument("--tries", type=options.positive, default=3, metavar="N",
                   help="systematic mutants: scenarios for each at most (default: 3)")  # fmt: skip
    p.add_argument("--list", action="store_true", help="list the mutants and stop")
    p.add_argument("--every", action="store_true", help="run every scenario of each mutant: the whole table")
    p.add_argument("--no-control", action="store_true", help="leave out the unmutated kernel (mistakes by hand)")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Run, print the table, leave it as mutants.txt and mutants.json in the last run's folder."""
    screen = Screen(sys.stdout)
    request = options.request_of(args, (args.kernel,))
    systematic = request.kernel(args.kernel).mutate is not None
    mutants = _points(args, request, screen) if systematic else choose(load_mutants(args.file), args.mutant)
    if args.list:
        for m in mutants:
            screen.line(f"{m.number:>4}  {m.name:<20} {m.about} [{m.imitates}]  {' '.join(m.scenarios)}{m.equivalent}")
        return 0
    try:
        if systematic:
            known = read_scenarios(request.scenario_paths or (default_scenarios(),))
            ids = [s.id for s in select(known, args.scenario)]
            mutants, trials, folders, complete = run_points(request, screen, mutants, ids, args.kernel, args.tries)
        else:
            trials, folders, complete = run_mutants(
                request, screen, mutants, every=args.every, control=not args.no_control, kernel=args.kernel
            )
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
    allowed = request.allow_unsupported
    green = all(
        t.row is not None
        and (t.row.status is Status.PASS or (t.row.status is Status.UNSUPPORTED and t.scenario in allowed))
        for t in trials
        if t.mutant is None
    )
    return 0 if green and all(line.catch in (Catch.NAMED, "equivalent") for line in lines) else 1


def _fine(trial: Trial, request: Request) -> bool:
    """The unmutated kernel is green under this scenario, or cannot do it and may."""
    if trial.row is None:
        return False
    allowed = trial.row.status is Status.UNSUPPORTED and trial.scenario in request.allow_unsupported
    return allowed or trial.row.status is Status.PASS


def _points(args: argparse.Namespace, request: Request, screen: Screen) -> tuple[Mutant, ...]:
    """The systematic mutants of a kernel, which is built for them; those of one function by its name."""
    built = kernel(Store(default_root()), request.kernel(args.kernel), screen.progress)
    screen.clear()
    points = load_points(built.bzimage.parent)
    functions = {m.imitates for m in points}
    wanted = [name for name in args.mutant if name not in functions]
    chosen = {m.number for m in choose(points, wanted)} if wanted or not args.mutant else set()
    return tuple(m for m in points if m.number in chosen or m.imitates in args.mutant)


def _line(mutant: Mutant, trials: Sequence[Trial]) -> MutantLine:
    mine = [t for t in trials if t.mutant is not None and t.mutant.number == mutant.number]
    hung = any(finding.rule == "ending" for t in mine if t.row is not None for finding in t.row.verdict.findings)
    caught = [t for t in mine if t.caught]
    note = mutant.equivalent
    if caught and mutant.hangs and not hung:
        note = "was expected to hang the guest, and did not"
    return MutantLine(
        name=mutant.name,
        number=mutant.number,
        about=mutant.about,
        imitates=mutant.imitates,
        cells=tuple((t.scenario, _cell(t)) for t in mine),
        catch="equivalent" if mutant.equivalent else catch_of(mutant, trials),
        caught_by=next((t.rule for t in mine if t.named), next((t.rule for t in caught), "")),
        note=note,
    )


def _cell(trial: Trial) -> str:
    if trial.row is None:
        return "no verdict"
    if not trial.caught:
        return trial.row.status.value
    return f"{trial.row.status} ({trial.rule}{'' if trial.named or trial.mutant is None else ', not named'})"
