# SPDX-License-Identifier: GPL-2.0-or-later
"""apf mutants: is the harness able to fail?"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from harness.artifacts.kernels.built_kernel import BuiltKernel, kernel
from harness.artifacts.store import Store, default_root
from harness.cli import options
from harness.errors import InfraFault, UsageError
from harness.report.mutants_text import MutantLine, mutants_page, mutants_table, replace_section
from harness.report.terminal import Screen
from harness.run.mutant_catalog import CATALOG, choose, load_mutants, require_mutants
from harness.run.mutant_points import load_points, try_points, with_scenarios
from harness.run.mutant_resume import earlier_trials
from harness.run.mutant_trials import (
    KERNEL,
    Catch,
    Mutant,
    MutantTrials,
    Trial,
    catch_of,
    end_differs,
    kind_of,
    kinds_that_name,
    trials_of,
)
from harness.run.mutants_report import write_mutants_page
from harness.run.mutants_told import scenario_digest, trials_told
from harness.run.request import Request
from harness.run.run_folder import RunFolder
from harness.run.scenario_sources import ScenarioFiles, default_scenarios, read_scenarios
from harness.run.selection import check_allowed, select
from harness.run.whole_file import write_whole
from harness.scenario.schema import Scenario
from harness.status import Status

_TRIES = 4

_HELP = """\
Try the harness on a kernel with one deliberate mistake at a time.

Without --kernel: the mistakes written by hand (kernels/patches/mutants/MUTANTS.toml), each under the scenarios that
should catch it.  With a kernel whose conditions and effects can all be made wrong (points-6.1, kernels/mutate.toml):
every one of them, each under the scenarios that were seen to reach it.  The unmutated kernel must be green under all.

A mutant is "caught" by a rule that names its fault; "caught otherwise" is a FAIL that does not name it, or a guest that
hung although nobody said so; "SURVIVED" and "not run" are holes in the harness.  Exit code 0: the unmutated kernel
green, every mutant caught by name, equivalent (nobody can notice it), or out of reach of every guest that the harness
sets up; mutate.toml has the arguments.

A run may be ended by Ctrl-C at any time; with --resume the next one goes on where it was, also from a page alone
(--write PAGE): the unmutated kernel is then performed again, because only that shows which scenarios reach what.
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "mutants", _HELP,
        [options.scenario_files(), options.running()],
    )  # fmt: skip
    p.add_argument("mutant", nargs="*", help="name, number, or function of systematic mutants (default: all)")
    p.add_argument("--kernel", default=KERNEL, help=f"kernel with mutants in it (default: {KERNEL})")
    p.add_argument("--file", type=Path, metavar="TOML", help="the mistakes written by hand (default: the project's)")
    p.add_argument("--with", dest="scenario", action="append", default=[], metavar="SCENARIO",
                   help="systematic mutants: choose from these scenarios only; may be repeated")  # fmt: skip
    p.add_argument("--tries", type=options.positive, default=0, metavar="N",
                   help=f"systematic mutants: scenarios for each catch at most (default: {_TRIES})")  # fmt: skip
    p.add_argument("--catches", type=options.positive, default=1, metavar="N",
                   help="go on until scenarios of so many kinds have caught a mutant by name; what differs in letters "
                   "only, as S49 and S49R, is one kind (default: 1)")  # fmt: skip
    p.add_argument("--resume", action="store_true",
                   help="what earlier runs in --results have tried on the same kernel, with the scenarios as they are "
                   "now, or the page of --write tells of them, is not tried again")  # fmt: skip
    p.add_argument("--tell", action="store_true", help="perform nothing: the table of what earlier runs have tried")
    p.add_argument(
        "--again", action="store_true", help="with --resume or --tell: judge their captures by today's rules"
    )
    p.add_argument("--write", type=Path, metavar="PAGE", help="also write the table as this kernel's section of a page")
    p.add_argument("--list", action="store_true", help="list the mutants and stop")
    p.add_argument("--every", action="store_true", help="run every scenario of each mutant: the whole table")
    p.add_argument("--no-control", action="store_true", help="leave out the unmutated kernel (mistakes by hand)")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Run, print the table, leave it as mutants.txt and mutants.json in the last run's folder."""
    screen = Screen(sys.stdout)
    request = replace(options.request_of(args, (args.kernel,)), wrong_kernel=True)
    systematic = request.kernel(args.kernel).mutate is not None
    _refuse_idle(args, systematic)
    if systematic:
        every_mutant = load_points(_built(request, args, screen).bzimage.parent)
    else:  # these are in a file: naming or listing them builds nothing
        every_mutant = load_mutants(args.file or CATALOG)
    mutants = choose(every_mutant, args.mutant)
    if args.list:
        for m in mutants:
            more = " ".join(m.scenarios) or m.equivalent or m.out_of_reach
            screen.line(f"{m.number:>4}  {m.name:<20} {m.about} [{m.imitates}]  {more}")
        return 0
    known = read_scenarios(request.scenario_paths or (default_scenarios(),))
    check_allowed(request.allow_unsupported, ScenarioFiles(known, ()))
    require_mutants(request.kernel(args.kernel))
    if not systematic and request.fleet is None:
        require_mutants(request.kernel(args.kernel), _built(request, args, screen))
    earlier: Sequence[Trial] = []
    if args.resume or args.tell:
        identity = _built(request, args, screen).identity
        earlier = earlier_trials(args.results, args.kernel, identity, mutants, known, again=args.again)
        earlier = [*_told(args, identity, mutants, known, earlier), *earlier]
    trials = MutantTrials(request, screen, args.kernel, earlier)
    ids = [s.id for s in select(known, args.scenario)]
    if args.tell:
        told = with_scenarios(trials, mutants, ids, args.tries or _TRIES, args.catches) if systematic else mutants
        return _report(args, screen, request, told, trials, known, complete=True)
    try:
        if systematic:
            mutants, complete = try_points(
                trials, mutants, ids, tries=args.tries or _TRIES, catches=args.catches, every=args.every
            )
        else:
            concerned = dict.fromkeys(s for m in mutants for s in m.scenarios)
            complete = args.no_control or trials.try_unmutated(tuple(concerned))
            complete = complete and trials.try_mutants(mutants, every=args.every, catches=args.catches)
    finally:
        screen.clear()
    return _report(args, screen, request, mutants, trials, known, complete)


def _told(
    args: argparse.Namespace,
    identity: str,
    mutants: Sequence[Mutant],
    scenarios: Sequence[Scenario],
    earlier: Sequence[Trial],
) -> list[Trial]:
    """What the page that is to be written tells of trials of which no folder is left."""
    if args.write is None or not args.write.exists():
        return []
    kept = {(t.mutant.number, t.scenario, t.at_go) for t in earlier if t.mutant is not None}
    told = trials_told(args.write.read_text(), args.kernel, identity, mutants, scenarios)
    return [t for t in told if t.mutant is not None and (t.mutant.number, t.scenario, t.at_go) not in kept]


def _built(request: Request, args: argparse.Namespace, screen: Screen) -> BuiltKernel:
    try:
        return kernel(Store(default_root()), request.kernel(args.kernel), screen.progress)
    finally:
        screen.clear()


def _report(
    args: argparse.Namespace,
    screen: Screen,
    request: Request,
    mutants: Sequence[Mutant],
    trials: MutantTrials,
    scenarios: Sequence[Scenario],
    complete: bool,
) -> int:
    lines = [_line(m, trials.trials) for m in mutants]
    control = [(t.scenario, _cell(t)) for t in trials.trials if t.mutant is None]
    text = mutants_table(lines, control)
    for folder in trials.folders[-1:]:
        RunFolder(folder).write_text("mutants.txt", "\n".join(text) + "\n")
        RunFolder(folder).write_text("mutants.json", json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    if args.write is not None:
        page = args.write.read_text() if args.write.exists() else ""
        command = shlex.join(["apf", "mutants", "--kernel", args.kernel, "--write", str(args.write), *args.mutant])
        made_from = _built(request, args, screen).identity if request.kernel(args.kernel).mutate is not None else ""
        digests = {s.id: scenario_digest(s) for s in scenarios}
        section = mutants_page(args.kernel, command, lines, control, made_from, digests)
        write_whole(args.write, replace_section(page, section))
    screen.line()
    for row in text:
        screen.line(row)
    page = write_mutants_page(
        args.results, args.kernel, request.command, zip(mutants, lines, strict=True), trials.trials, _cell
    )
    screen.line(f"page: {page}")
    screen.line(f"evidence: {', '.join(map(str, trials.folders)) or 'all of earlier runs'}")
    for trouble in trials.troubles:
        screen.line(trouble)
    if not complete:
        return 130
    green = all(_fine(t, request) for t in trials.trials if t.mutant is None)
    if not green or any(line.catch not in (Catch.NAMED, Catch.EQUIVALENT, Catch.OUT_OF_REACH) for line in lines):
        return 1
    return InfraFault.exit_code if trials.troubles else 0


def _refuse_idle(args: argparse.Namespace, systematic: bool) -> None:
    """:raise UsageError: an option that would change nothing."""
    if args.accept_findings is not None:
        raise UsageError("--accept-findings: the unmutated kernel may show what its model says of it in any case")
    if args.again and not (args.resume or args.tell):
        raise UsageError("--again is for --resume and --tell: nothing else looks at captures of earlier runs")
    if systematic and (args.file is not None or args.no_control):
        raise UsageError(f"--file and --no-control are for mistakes by hand; those of {args.kernel} are systematic")
    if not systematic and (args.scenario or args.tries):
        raise UsageError(f"--with and --tries are for systematic mutants; those of {args.kernel} were written by hand")


def _fine(trial: Trial, request: Request) -> bool:
    """The unmutated kernel is green under this scenario, or cannot do it and may."""
    if trial.row is None:
        return False
    allowed = trial.row.status is Status.UNSUPPORTED and trial.scenario in request.allow_unsupported
    return allowed or trial.row.status.as_predicted


def _line(mutant: Mutant, trials: Sequence[Trial]) -> MutantLine:
    mine = trials_of(mutant, trials)
    caught = [t for t in mine if t.caught]
    return MutantLine(
        name=mutant.name,
        number=mutant.number,
        about=mutant.about,
        imitates=mutant.imitates,
        cells=tuple((t.shown_as, _cell(t)) for t in mine),
        catch=catch_of(mutant, trials),
        caught_by=next((t.rule for t in mine if t.named), next((t.rule for t in caught), "")),
        kinds=len(kinds_that_name(mutant, trials)),
        alone=_alone(mutant, mine),
        note=mutant.equivalent or mutant.out_of_reach or end_differs(mutant, trials) or _not_tried(mutant, mine),
    )


def _alone(mutant: Mutant, trials: Sequence[Trial]) -> str:
    """Why no second kind of scenario has caught a mutant, as far as it is known."""
    kinds = kinds_that_name(mutant, trials)
    tried = {t.scenario for t in trials if kind_of(t.scenario) not in kinds}
    left = [s for s in mutant.scenarios if s not in tried and kind_of(s) not in kinds]
    told = [f"not by {', '.join(sorted(tried))}"] if tried else []
    told += [f"not tried: {', '.join(left)}"] if left else []
    return mutant.alone or "; ".join(told) or "no scenario of another kind reaches it"


def _not_tried(mutant: Mutant, trials: Sequence[Trial]) -> str:
    if any(t.row is not None for t in trials) or not mutant.scenarios:
        return ""
    return f"not tried; reached by {', '.join(mutant.scenarios)}"


def _cell(trial: Trial) -> str:
    if trial.row is None:
        return "no verdict"
    if not trial.caught:
        return trial.row.status.value
    return f"{trial.row.status} ({trial.rule}{'' if trial.named or trial.mutant is None else ', not named'})"
