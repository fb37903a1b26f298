# SPDX-License-Identifier: GPL-2.0-or-later
"""apf judge: judge an old capture again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.cli import COMMANDS, options
from harness.errors import UsageError
from harness.judge.verdict_types import Verdict
from harness.model.kernels import Variant
from harness.report.terminal import Screen
from harness.report.verdict_text import reason_text, verdict_text
from harness.run.judge_again import CAPTURE, VERDICT, judge_again, verdict_folders
from harness.run.judge_folder import judge_folder
from harness.status import Status

_HELP = """\
Judge a capture again: it holds all that is needed, so that the verdict can be had again for ever, also with a newer
model, or against the model of another kernel ("what would noio-6.1 have done?").

FOLDER is the folder of a scenario in the results (results/latest/S23+debian-6.1), or its capture/.
Exit code: 0 PASS, 1 FAIL or FINDING or INCONCLUSIVE or UNSUPPORTED, 3 ERROR.

FOLDER may be a whole run, too (results/latest), and there may be several: every capture in them is judged again as the
run's own verdict was, and what is another verdict now is told.  Exit code: 0 all are the same, 1 some differ.  To be
done after each change of model or judge: a mend for one run must not break another.
"""

_MARKS = ("plan.json", "end.json", "facts.json", "progress.jsonl")
"""A capture has at least one of these, however early it was broken off."""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = subparsers.add_parser(
        "judge", help=COMMANDS["judge"], description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("folder", type=Path, nargs="+", metavar="FOLDER")
    p.add_argument(
        "-k", "--model", metavar="M", default="",
        help='variant ("sync", "noio", "nowait") or name of a model, with "+F1" if it has the fix of a finding;'
        " default: as the run's verdict",
    )  # fmt: skip
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Judge and print."""
    folders: list[Path] = args.folder
    for folder in folders:
        if not folder.is_dir():
            near = sorted(p.name for p in folder.parent.glob(f"{folder.name}+*")) if folder.parent.is_dir() else []
            raise UsageError(f"{folder}: no such folder", hint=f"did you mean {', '.join(near)}?" if near else "")
    runs = {folder: verdict_folders(folder) for folder in folders}
    if len(folders) == 1 and not runs[folders[0]]:
        if (folders[0] / "results.json").is_file():
            raise UsageError(f"{folders[0]}: no verdict of this run has a capture")
        return _judge_one(args, folders[0])
    if args.json or args.model:
        raise UsageError("--json and --model are for one capture")
    return _judge_runs([inner for folder, found in runs.items() for inner in found or [_verdict_folder(folder)]])


def _judge_one(args: argparse.Namespace, folder: Path) -> int:
    capture = _capture_of(folder)
    verdict = judge_folder(capture, args.model or _variant_of(capture.parent))
    if args.json:
        print(verdict.to_json())
    else:
        reason = reason_text(verdict)
        print(f"{verdict.word}: {reason}" if reason else verdict.word)
        print(verdict_text(verdict))
    if verdict.status is Status.PASS:
        return 0
    return 3 if verdict.status is Status.ERROR else 1


def _judge_runs(folders: Sequence[Path]) -> int:
    screen, number, differ, kept = Screen(sys.stdout), 0, 0, 0
    try:
        for number, again in enumerate(judge_again(folders), 1):
            screen.progress(f"judged {number} of {len(folders)}", number / len(folders))
            kept += not again.judged
            if again.differs:
                differ += 1
                reason = f": {again.reason}" if again.reason else ""
                screen.line(f"{again.folder}: {again.then}, now {again.now}{reason}")
    finally:  # a run takes minutes: what was found is told also where it is cut short
        judged = number - kept
        unread = f" of {len(folders)}" if number < len(folders) else ""
        unjudged = f", {kept} had ended before there was anything to judge" if kept else ""
        screen.clear()
        screen.line(f"{judged}{unread} judged again: {judged - differ} as before, {differ} differ{unjudged}")
    return 1 if differ else 0


def _capture_of(folder: Path) -> Path:
    capture = folder / CAPTURE if (folder / CAPTURE).is_dir() else folder
    if not any((capture / name).is_file() for name in _MARKS):
        raise UsageError(f"{folder} is no capture: it has none of {', '.join(_MARKS)}")
    return capture


def _verdict_folder(folder: Path) -> Path:
    """Of one that is named beside others.

    :raise UsageError: it has no verdict of before.
    """
    capture = _capture_of(folder)
    if not (capture.parent / VERDICT).is_file() or capture.name != CAPTURE:
        raise UsageError(f"{folder} has no {VERDICT}: nothing to compare with")
    return capture.parent


def _variant_of(folder: Path) -> str:
    """What the run said that its kernel was; "nowait", as upstream is, for a capture that lies alone."""
    file = folder / VERDICT
    known = Verdict.from_json(file.read_text()).judged_by if file.is_file() else ""
    return known or Variant.NOWAIT
