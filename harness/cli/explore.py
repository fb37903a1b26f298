# SPDX-License-Identifier: GPL-2.0-or-later
"""apf explore: scenarios that nobody wrote."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from harness.cli import options
from harness.errors import UsageError
from harness.explore.generate import GENERATION
from harness.explore.themes import themes_of
from harness.report.explore_text import explore_lines
from harness.report.terminal import Screen
from harness.run.exploration import ExploreOrder, explore
from harness.run.explored_mutants import Hunt, explore_mutants
from harness.run.mutant_catalog import choose, load_mutants
from harness.run.mutant_trials import KERNEL

_SHRINK = 60

_HELP = """\
Make random scenarios, perform them on a kernel, and hold what was seen against what the model predicts.

A disagreement is a fault of the kernel, of the model or of the harness.  The first of each kind is made small:
what is left is a scenario file, the command that repeats it, and how often of ten it showed.
The same seed gives the same scenarios.
"""
_EPILOG = """\
examples:
  apf explore --kernel debian-6.1 --plans 100
  apf explore --kernel ~/linux --minutes 30 --seed 7
  apf explore --host ssh:bigbox --minutes 60

Exit code: 0 all agreed, 1 something disagreed or was inconclusive, 2 bad usage, 3 our or the machine's fault.
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "explore", _HELP,
        [options.running()], _EPILOG,
    )  # fmt: skip
    p.add_argument(
        "-k", "--kernel", default="", metavar="K",
        help=f"name from `apf kernels`, a bzImage, or a kernel tree (default {options.DEFAULT_KERNEL}, or the one that"
        " the host has)",
    )  # fmt: skip
    much = p.add_mutually_exclusive_group(required=True)
    much.add_argument("--plans", type=options.positive, default=0, metavar="N", help="so many scenarios")
    much.add_argument("--minutes", type=options.positive, default=0, metavar="M", help="as many as this time allows")
    p.add_argument("--seed", type=int, default=None, metavar="S", help="default: one that no run had")
    p.add_argument("--first", type=int, default=0, metavar="N", help="number of the seed's first scenario (default 0)")
    p.add_argument("--generation", type=int, default=GENERATION, metavar="G",
                   help=f"of the generator: an older one gives what it gave (default {GENERATION})")  # fmt: skip
    p.add_argument("--shrink", type=int, default=None, metavar="N",
                   help=f"runs to make one disagreement small at most; 0: do not (default {_SHRINK})")  # fmt: skip
    p.add_argument("--keep", action="store_true", help="keep the captures of scenarios that agreed, too")
    p.add_argument("--mutants", nargs="*", default=None, metavar="MUTANT",
                   help="of a kernel with deliberate mistakes (mutants-6.1): how many scenarios until each is caught, "
                   f"at most --plans (default: all of them; the kernel {KERNEL})")  # fmt: skip
    p.set_defaults(func=main, scenarios=[])


def main(args: argparse.Namespace) -> int:
    """Explore, and say what was found."""
    if args.first < 0 or (args.shrink or 0) < 0:
        raise UsageError("--first and --shrink are not negative")
    if args.allow_unsupported or args.accept_findings is not None:
        raise UsageError(
            "--allow-unsupported and --accept-findings are for scenarios that have a name",
            hint="an exploration counts what could not be performed, and known faults that show as predicted",
        )
    seed = secrets.randbits(31) if args.seed is None else args.seed
    screen = Screen(sys.stdout)
    themes_of(args.generation)  # known, or a UsageError before anything is begun
    wanted = ExploreOrder(
        seed, args.plans, args.minutes * 60.0, args.first, _SHRINK if args.shrink is None else args.shrink, args.keep,
        generation=args.generation,
    )  # fmt: skip
    if args.mutants is not None:
        return _mutants(args, wanted, screen)
    request = options.request_of(args, options.kernels_of(args, [args.kernel] if args.kernel else []))
    try:
        found, folder = explore(wanted, request, screen)
    finally:
        screen.clear()
    screen.line()
    for line in explore_lines(found):
        screen.line(line)
    screen.line(f"evidence: {folder}")
    screen.line(f"exit code {found.exit_code}")
    return found.exit_code


def _mutants(args: argparse.Namespace, order: ExploreOrder, screen: Screen) -> int:
    """:raise UsageError: an option that would change nothing, or a kernel without mistakes in it."""
    if not order.plans:
        raise UsageError("--mutants needs --plans")
    idle = {"--keep": args.keep, "--shrink": args.shrink is not None, "--hosts": args.hosts}
    given = [option for option, is_given in idle.items() if is_given]
    if given:
        raise UsageError(
            f"--mutants does not go with {', '.join(given)}: captures are kept, nothing is made small, and one trial"
            " decides on the next"
        )
    own = () if not options.place_of(args).boots else (KERNEL,)
    request = replace(options.request_of(args, (args.kernel,) if args.kernel else own), wrong_kernel=True)
    for name in request.kernels:
        if request.kernel(name).mutate is not None:
            raise UsageError(f"{name} has systematic mistakes", hint=f"`apf mutants --kernel {name}` tries them")
    try:
        found, folder = explore_mutants(order, choose(load_mutants(), args.mutants), request, screen)
    finally:
        screen.clear()
    screen.line()
    for hunt in found.hunts:
        for line in _told(hunt):
            screen.line(line)
    screen.line(f"evidence: {folder}")
    return found.exit_code


def _told(hunt: Hunt) -> Iterator[str]:
    """A line for a mutant, and one for each kind of what decided nothing."""
    how = f"{hunt.rule}{'' if hunt.named else ' (not named)'} in {hunt.caught_by}" if hunt.caught_by else hunt.catch
    alarms = f"  false alarms: {' '.join(hunt.false_alarms)}" if hunt.false_alarms else ""
    yield f"{hunt.number:>4}  {hunt.mutant:<24} {hunt.scenarios:>4}  {how}{alarms}"
    for why, count in Counter(told.partition(": ")[2] for told in hunt.undecided).items():
        yield f"      {count} undecided: {why}"
