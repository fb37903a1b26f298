# SPDX-License-Identifier: GPL-2.0-or-later
"""``apf predict``: what a scenario must lead to on a kernel, and why, before anything is run."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from harness.cli import options
from harness.errors import ModelError, UsageError
from harness.model.kernels import KernelModel
from harness.model.simulation.situation import Prediction
from harness.prediction import offered_features, predict
from harness.report.predict_text import predict_json, predict_text
from harness.report.terminal import Screen
from harness.run.foretold_runs import hold_against_predictions
from harness.run.judge_again import CAPTURE, VERDICT, verdict_folders
from harness.run.model_named import model_named
from harness.run.scenario_sources import ScenarioFiles, default_scenarios, file_of, read_scenario_files
from harness.run.selection import Chosen, choose
from harness.scenario.build import build_plan
from harness.scenario.load import Refusal, refused_error
from harness.scenario.schema import Scenario

_KERNEL = "nowait-6.1"
_SHOWN = 4
"""So many lines for each folder."""
_NONCE = 0x5EED_0000_0000_0001
"""Only the value that a read returns depends on it."""

_HELP = """\
Ask the model, without running anything: the outcome of each item with the kernel function that decides it, who issues
the reads, and all counts.  Where the kernel leaves a choice the answer is a range, with its reason.
Orders of what may come in any are tried one by one, and what would keep the program from its end is said.

With --seen, what was seen in runs is held against that: each PASS and each FINDING was found so with what the run had
decided, which thread was first, say; what is said beforehand must allow it, too.  Exit code: 0 it does, 1 not always.
"""
_EPILOG = """\
examples:
  apf predict S23                           on a stock 6.1 kernel
  apf predict S28 --kernel noio-6.1         on one with get_user_pages_noio()
  apf predict S84 --kernel nowait:6.1.158   on one stable level
  apf predict my.toml --events              a file of one's own, with the events in order
  apf predict --seen results/latest         is what was seen within what is said?
"""


def add(subparsers: options.Subparsers) -> None:
    """Register ``apf predict``."""
    p = options.command(
        subparsers, "predict", _HELP,
        [options.scenario_files()], _EPILOG,
    )  # fmt: skip
    p.add_argument("scenario", nargs="*", help='id, glob ("S2*"), tag ("tag:smoke") or a scenario file')
    p.add_argument("-k", "--kernel", default="", metavar="KERNEL",
                   help="of the model (nowait-6.1, noio-6.1, ...), of `apf kernels` (debian-6.12), or VARIANT:RELEASE "
                   "(nowait:6.1.158); default " + _KERNEL)  # fmt: skip
    p.add_argument("--orders", type=options.positive, default=100, metavar="N",
                   help="orders of what may come in any that are tried (default %(default)s)")  # fmt: skip
    p.add_argument("--events", action="store_true", help="also print the predicted events in order")
    p.add_argument("--json", action="store_true", help="as JSON")
    p.add_argument("--seen", type=Path, nargs="+", default=[], metavar="FOLDER",
                   help="hold what was seen in a run (results/latest), or one scenario of it, against it")  # fmt: skip
    p.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Predict and print.

    :raise UsageError: no such scenario or kernel; and behind all answers, why others could not be given.
    """
    if args.seen:
        return _hold(args)
    if not args.scenario:
        raise UsageError("a scenario is needed, or --seen FOLDER", hint="apf list shows the scenarios")
    kernel = model_named(args.kernel or _KERNEL)
    scenarios, refused = _scenarios(args)
    answers: list[tuple[Scenario, Prediction, tuple[str, ...]]] = []
    problems: list[UsageError] = [refused_error([refusal]) for refusal in refused]
    for scenario in scenarios:
        try:
            answers.append((scenario, *_predict(scenario, kernel, args)))
        except ModelError as exc:
            problems.append(exc)
    if answers and args.json:
        print(json.dumps([predict_json(s, a, offered) for s, a, offered in answers], indent=1))
    elif answers:
        width = min(shutil.get_terminal_size((110, 24)).columns, 160)
        texts = (predict_text(s, kernel, a, o, width=width, events=args.events) for s, a, o in answers)
        print("\n\n".join(texts))
    if problems:
        raise UsageError("\n".join(p.message for p in problems), hint=problems[-1].hint)
    return 0


def _hold(args: argparse.Namespace) -> int:
    if args.scenario or args.scenarios or args.kernel or args.json or args.events:
        raise UsageError(
            "--seen has its scenarios and kernels from the folders: no names, --scenarios, --kernel, --events, --json"
        )
    folders = [inner for folder in args.seen for inner in _verdicts(folder)]
    screen, number, outside, over = Screen(sys.stdout), 0, 0, 0
    try:
        for number, held in enumerate(hold_against_predictions(folders, args.orders), 1):
            screen.progress(f"held against what is said: {number} of {len(folders)}", number / len(folders))
            outside += bool(held.outside)
            over += bool(held.passed_over)
            lines = (f"passed over: {held.passed_over}",) if held.passed_over else held.outside
            for line in lines[:_SHOWN]:
                screen.line(f"{held.folder}: {line}")
            if len(lines) > _SHOWN:
                screen.line(f"{held.folder}: and {len(lines) - _SHOWN} more")
    finally:  # it takes seconds for each: what was found is told also where it is cut short
        screen.clear()
        screen.line(
            f"{number} of {len(folders)} verdicts: {number - outside - over} within what is said before a run,"
            f" {outside} not, {over} passed over"
        )
    return 1 if outside else 0


def _verdicts(folder: Path) -> list[Path]:
    """:raise UsageError: none there with a capture."""
    found = [folder] if (folder / VERDICT).is_file() and (folder / CAPTURE).is_dir() else verdict_folders(folder)
    if not found:
        raise UsageError(f"{folder}: no folder of a run or of one of its scenarios with a verdict and a capture")
    return found


def _predict(scenario: Scenario, kernel: KernelModel, args: argparse.Namespace) -> tuple[Prediction, tuple[str, ...]]:
    """... and the features that the guest is offered.

    :raise ModelError: the model cannot say; the message names the scenario and its file.
    """
    try:
        plan = build_plan(scenario, _NONCE)
        return predict(plan, kernel, orders=args.orders), offered_features(plan, kernel)
    except ModelError as exc:
        files = [Path(name) for name in args.scenario if name.endswith(".toml")]
        file = file_of(scenario.id, files) or file_of(scenario.id, args.scenarios or [default_scenarios()])
        raise ModelError(f"{file}: {scenario.id}: {exc.message}", hint=exc.hint) from exc


def _scenarios(args: argparse.Namespace) -> tuple[tuple[Scenario, ...], tuple[Refusal, ...]]:
    """Those that are meant, and the files that were meant and hold none."""
    files = [Path(name) for name in args.scenario if name.endswith(".toml")]
    names = [name for name in args.scenario if not name.endswith(".toml")]
    read = read_scenario_files(files) if files else ScenarioFiles((), ())
    chosen = Chosen(read.scenarios, read.refused, ())
    if names:
        known = read_scenario_files(args.scenarios or [default_scenarios()])
        named = choose(known, names)
        chosen = Chosen((*chosen.scenarios, *named.scenarios), (*chosen.refused, *named.refused), ())
    return chosen.scenarios, chosen.refused
