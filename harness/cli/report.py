# SPDX-License-Identifier: GPL-2.0-or-later
"""apf report: the page of a run, written anew."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import options
from harness.errors import ApfError
from harness.model.kernels import Variant
from harness.run.drawings import write_drawings
from harness.run.judge_folder import judge_folder_whole
from harness.run.report_folder import read_run, write_page

_HELP = """\
Write the page of a run (index.html in its folder) anew.  Each run writes its own; this is for runs of before there
were pages, or with --draw for timelines as this version draws them.  No verdict changes.
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(subparsers, "report", _HELP)
    p.add_argument("run", nargs="?", type=Path, default=Path("results/latest"), metavar="RUN",
                   help="the folder of a run (default results/latest)")  # fmt: skip
    p.add_argument("--draw", action="store_true", help="also draw the timelines anew, from the captures")
    p.add_argument("--tree", type=Path, metavar="DIR",
                   help="git tree of the kernels: name commits of the area where a verdict is not green")  # fmt: skip
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Draw, write, say where."""
    folder: Path = args.run
    result = read_run(folder)
    if args.draw:
        for row in result.rows:
            capture = folder / row.folder / "capture"
            try:
                if capture.is_dir():
                    model = row.verdict.judged_by or Variant.NOWAIT
                    write_drawings(folder / row.folder, judge_folder_whole(capture, model))
            except ApfError as exc:
                print(f"{row.key}: not drawn: {exc}")
    trees = {key.kernel: args.tree for key in result.planned} if args.tree is not None else {}
    page = write_page(folder, result, trees)
    print(f"{page}: {page.stat().st_size / 1e6:.2f} MB")
    return 0
