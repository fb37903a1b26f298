# SPDX-License-Identifier: GPL-2.0-or-later
"""apf show: one verdict, explained, with its timeline in characters; or a run that still goes on."""

from __future__ import annotations

import argparse
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.cli import options
from harness.errors import UsageError
from harness.judge.offered_features import offered_words
from harness.judge.verdict_types import Verdict
from harness.model.kernels import Variant
from harness.report.explain_verdict import cited_by, explain_verdict
from harness.report.printable import printable
from harness.report.terminal import table
from harness.report.timeline.build_timeline import build_timeline
from harness.report.timeline.chars import chars
from harness.run.area_commits import area_commits
from harness.run.judge_folder import judge_folder_whole
from harness.run.report_folder import read_run, trace_dat_notes

_HELP = """\
Explain a verdict in at most ten lines (what should have happened, by which function, what happened instead), and draw
its timeline in characters: vCPUs, kworkers, reads in flight, the guest's items, and the same as the model has it.

WHAT is the folder of a verdict (results/latest/S29+debian-6.1), or of a run (results/latest), whose table is shown.
With --watch a run is followed until all that was planned has a verdict, and a verdict is waited for.
"""
_EPILOG = """\
examples:
  apf show results/latest/S29+debian-6.1
  apf show results/latest/S60+mutants-6.1 --tree ~/linux    with the commits that changed the functions named
  apf show results/latest --watch
"""
_AGAIN_S = 0.5


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(subparsers, "show", _HELP, epilog=_EPILOG)
    p.add_argument("what", type=Path, metavar="WHAT")
    p.add_argument("--watch", action="store_true", help="wait for what is not there yet, and tell it as it comes")
    p.add_argument("--tree", type=Path, metavar="DIR", help="git tree of the kernel: name commits of the area")
    p.add_argument("--width", type=options.positive, default=0, metavar="N", help="columns (default: the terminal's)")
    p.add_argument("--deadline", type=options.positive, default=86_400, metavar="S",
                   help="--watch: give up after so many seconds (default a day)")  # fmt: skip
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Show.  Exit code: 0 shown; 3 what was waited for did not come."""
    what: Path = args.what
    end = time.monotonic() + args.deadline
    if (what / "results.json").is_file():
        return _run(what, args.watch, end)
    if args.watch and not _until((what / "verdict.json").is_file, end):
        print(f"{what}: no verdict within {args.deadline} s")
        return 3
    for line in _verdict(what, args.tree, args.width or shutil.get_terminal_size((110, 24)).columns):
        print(line)
    return 0


def _verdict(folder: Path, tree: Path | None, width: int) -> Iterator[str]:
    """:raise UsageError: no verdict lies there."""
    file = folder / "verdict.json"
    if not file.is_file():
        raise UsageError(f"{folder}: no verdict.json here", hint="the folder of a verdict, or of a run; see --watch")
    verdict = Verdict.from_json(file.read_text())
    commits: tuple[str, ...] = ()
    if tree is not None and verdict.findings:
        commits = area_commits(tree, cited_by(verdict, verdict.findings[0]))
    for line in explain_verdict(verdict, commits):
        yield printable(line)
    yield ""
    yield from map(printable, trace_dat_notes(folder))
    capture = folder / "capture"
    judged = judge_folder_whole(capture, verdict.judged_by or Variant.NOWAIT) if capture.is_dir() else None
    if judged is not None and judged.evidence is not None and judged.evidence.guest is not None:
        yield from map(printable, offered_words(judged.evidence.guest))
    timeline = build_timeline(judged) if judged is not None else None
    if timeline is None:
        yield "there is no trace to draw"
        return
    yield from chars(timeline, width)


def _run(folder: Path, watch: bool, end: float) -> int:
    """The table of a run; with ``watch`` each verdict as it comes first."""
    result = read_run(folder)
    told = 0
    while watch:
        for row in result.rows[told:]:
            print(printable(f"{row.verdict.word:<12} {row.key} ({row.seconds:.1f} s)  {row.verdict.reason}".rstrip()))
        told = max(told, len(result.rows))
        if not result.missing or result.interrupted:
            break
        before = (folder / "results.json").stat().st_mtime_ns

        def changed(before: int = before) -> bool:
            return (folder / "results.json").stat().st_mtime_ns != before

        if not _until(changed, end):
            print("the deadline has passed, and the run is not at its end")
            return 3
        result = read_run(folder)
    for line in table(result):
        print(printable(line))
    return 0


def _until(holds: Callable[[], bool], end: float) -> bool:
    """Wait until it holds; whether it does by time.monotonic() = ``end``."""
    pause = threading.Event()
    while not holds():
        if time.monotonic() >= end:
            return False
        pause.wait(_AGAIN_S)
    return True
