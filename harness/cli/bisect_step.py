# SPDX-License-Identifier: GPL-2.0-or-later
"""apf bisect-step: for `git bisect run`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.artifacts.catalog import VARIANTS, CatalogKernel, find_kernel
from harness.artifacts.kernels import built_kernel
from harness.artifacts.store import Store
from harness.cli import options
from harness.errors import BuildFailed, InfraFault, ModelError, Unsupported, UsageError
from harness.report.terminal import Screen
from harness.results import Row
from harness.run.bisect import BisectState, Untestable, question, revision_of, state_path, step
from harness.run.described import require_model, require_model_of_built
from harness.run.request import Request
from harness.run.runner import run
from harness.run.scenario_sources import default_scenarios, read_scenario_files
from harness.run.selection import check_allowed, choose, plan_jobs
from harness.scenario.load import refused_error
from harness.scenario.schema import Scenario
from harness.status import Status

_HELP = """\
Build the kernel tree as it is checked out, run scenarios on it, and answer git:

  git bisect start BAD GOOD
  git bisect run apf bisect-step --tree . S23 S29

Exit code 0: good, 1: bad, 125: skip (does not build or boot, is a kernel that no model describes, or proves nothing
after repeats), 128: no answer, because of an error of ours, of the machine, or in what was asked: git ends the
bisection, and the same `git bisect run` goes on with it when that is mended.  What is certain of each revision is kept
in the git directory (apf-bisect.json), so that an interrupted bisection goes on where it was; one with other
scenarios, another variant or another version of the harness begins anew.
"""

_BY_MACHINE = re.compile(r"Killed signal|No space left on device|Cannot allocate memory|memory exhausted")
"""What a compiler says when it is not the source that it fails by."""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "bisect-step", _HELP,
        [options.scenario_files(), options.running()],
    )  # fmt: skip
    options.scenario_argument(p, "+")
    p.add_argument("--tree", type=Path, default=Path("."), metavar="DIR", help="kernel tree (default: here)")
    p.add_argument("--variant", choices=VARIANTS, default="nowait", help="model (default nowait)")
    p.add_argument("--repeats", type=options.positive, default=1, metavar="N",
                   help="rounds without a FAIL that make it good")  # fmt: skip
    p.add_argument("--state", type=Path, metavar="FILE", help="default: apf-bisect.json in the git directory")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """The answer as exit code; what raises is no answer (harness.cli.exit_code)."""
    if not options.place_of(args).boots:
        raise UsageError(f"a bisection boots another kernel at each step, and --host {args.host} has the one it runs")
    if args.accept_findings is not None:
        raise UsageError("--accept-findings says nothing to git: a finding that the model predicts is good in any case")
    screen = Screen(sys.stdout)
    tree = args.tree.absolute()
    revision = revision_of(tree)
    entry = replace(find_kernel(str(tree)), id="bisected", variant=args.variant)
    request = options.request_of(args, ("bisected",), repeats=1, extra=(entry,))
    about = question(_check_scenarios(request, args.variant), args.variant)

    def perform() -> Sequence[Row]:
        _build(entry, screen)
        result, _ = run(request, screen)
        if result.interrupted:
            raise KeyboardInterrupt
        return [row for row in result.rows if row.status is not Status.UNSUPPORTED or not result.is_green(row)]

    state = BisectState.load(args.state or state_path(tree), about)
    try:
        return int(step(state, revision, args.repeats, perform, screen.line))
    finally:
        screen.clear()


def _check_scenarios(request: Request, variant: str) -> Sequence[Scenario]:
    """What git cannot know: that each scenario that is meant can be had, before anything is built; these.

    :raise UsageError: one cannot.
    """
    known = read_scenario_files(request.scenario_paths or (default_scenarios(),))
    chosen = choose(known, request.patterns)
    if chosen.refused:
        raise refused_error(chosen.refused)
    check_allowed(request.allow_unsupported, known)
    plan_jobs(chosen.scenarios, {"bisected": variant}, 1)
    return chosen.scenarios


def _build(entry: CatalogKernel, screen: Screen) -> None:
    """Make the revision's kernel before anything else, so that its failure is told from all others.

    :raise Untestable: it does not build, or no model describes it.
    :raise InfraFault: download, tools or space.
    """
    try:
        require_model(entry)
        built = built_kernel.kernel(Store(progress=screen.progress), entry, screen.progress)
        require_model_of_built(entry.id, built.variant, built.version or built.release)
    except BuildFailed as exc:
        if _BY_MACHINE.search(exc.message):
            raise InfraFault(exc.message, hint=exc.hint) from exc
        raise Untestable(exc.message, hint=exc.hint, lasting=True) from exc
    except (ModelError, Unsupported) as exc:
        raise Untestable(exc.message, hint=exc.hint) from exc
