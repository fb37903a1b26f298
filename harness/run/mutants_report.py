# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of `apf mutants`: for each mutant the trials, the verdict that caught it, and its timeline.

Trials are performed without drawing.  What is shown is drawn here, once: of each mutant the capture that named it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from harness.errors import ApfError
from harness.judge.verdict_types import Verdict
from harness.model.kernels import Variant
from harness.report.explain_verdict import explain_verdict
from harness.report.mutants_text import MutantLine
from harness.report.page.mutants_page import MutantsPage, ShownMutant, ShownTrial, build_mutants_page
from harness.results import Key
from harness.run.drawings import FAILED, SVG, write_drawings
from harness.run.judge_folder import judge_folder_whole
from harness.run.judging_pool import judging_pool
from harness.run.mutant_trials import KERNEL, Mutant, Trial, trials_of
from harness.run.whole_file import write_whole

MOST_BYTES = 4 << 20
"""Of a trace that is drawn: a vCPU that spins leaves one that takes minutes."""


def page_of(results: Path, kernel: str) -> Path:
    """Where the page of a kernel's mutants is: beside the runs, because trials of many runs count."""
    return results / f"{Key('mutants', kernel).folder}.html"


def write_mutants_page(
    results: Path,
    kernel: str,
    command: str,
    mutants: Iterable[tuple[Mutant, MutantLine]],
    trials: Sequence[Trial],
    told: Callable[[Trial], str],
) -> Path:
    """Draw what is missing, and write the page at once or not at all.

    :param told: a trial's verdict in words.
    """
    mutants = list(mutants)
    catching = {m.number: trial for m, _ in mutants if (trial := _catching(trials_of(m, trials))) is not None}
    _draw([folder for trial in catching.values() if (folder := trial.evidence) is not None])
    shown = []
    for mutant, line in mutants:
        mine, trial = trials_of(mutant, trials), catching.get(mutant.number)
        row = trial.row if trial is not None else None
        timeline, notes = _timeline(trial.evidence if trial is not None else None)
        shown.append(
            ShownMutant(
                line,
                tuple(_shown(t, told, results) for t in mine),
                _repeat(kernel, mutant, trial),
                trial.shown_as if trial is not None else "",
                (*explain_verdict(row.verdict), *_naming(trial, row.verdict)) if trial and row else (),
                timeline,
                notes,
            )
        )
    control = tuple(_shown(t, told, results) for t in trials if t.mutant is None)
    page = page_of(results, kernel)
    data = MutantsPage(kernel, command, control, tuple(shown))
    return write_whole(page, build_mutants_page(data))


def _catching(trials: Sequence[Trial]) -> Trial | None:
    """The one that is shown: the first that names the fault, else the first FAIL."""
    return next((t for t in trials if t.named), next((t for t in trials if t.caught), None))


def _naming(trial: Trial, verdict: Verdict) -> Iterator[str]:
    """What named the fault, where that is not the first divergence: the first finding of each kind."""
    for name in trial.naming:
        found = next(f for f in verdict.findings if f.name == name)
        if found is not verdict.findings[0]:
            yield f"names the fault: {name}{f' (trace/events.txt:{found.line})' if found.line else ''}: {found.message}"


def _shown(trial: Trial, told: Callable[[Trial], str], results: Path) -> ShownTrial:
    folder = trial.evidence
    link = quote(os.path.relpath(folder, results)) + "/" if folder is not None and folder.is_dir() else ""
    return ShownTrial(trial.shown_as, trial.row.status.value if trial.row is not None else "", told(trial), link)


def _repeat(kernel: str, mutant: Mutant, trial: Trial | None) -> str:
    """The command that tries it again; under the scenario that is shown, where that can be chosen."""
    words = ["apf", "mutants", mutant.label]
    if kernel != KERNEL:
        words += ["--kernel", kernel]
        words += ["--with", trial.scenario] if trial is not None else []
    return shlex.join(words)


def _draw(folders: Sequence[Path]) -> None:
    """Draw those that are not drawn and not too long; what cannot be drawn says so itself (drawings.py)."""
    wanted = [f for f in folders if not (f / SVG).exists() and not (f / FAILED).exists() and _trace_bytes(f) > 0]
    wanted = [f for f in wanted if _trace_bytes(f) <= MOST_BYTES]
    if wanted:
        with judging_pool() as pool:
            list(pool.map(_draw_one, wanted))


def _draw_one(folder: Path) -> None:
    try:
        verdict = Verdict.from_json((folder / "verdict.json").read_text())
        write_drawings(folder, judge_folder_whole(folder / "capture", verdict.judged_by or Variant.NOWAIT))
    except (ApfError, OSError) as exc:
        write_whole(folder / FAILED, f"{exc}\n")


def _trace_bytes(folder: Path) -> int:
    trace = folder / "capture/trace/events.txt"
    return trace.stat().st_size if trace.is_file() else 0


def _timeline(folder: Path | None) -> tuple[str, tuple[str, ...]]:
    """The SVG, and what is to be said of it."""
    if folder is None:
        return "", ()
    if (folder / SVG).is_file():
        return (folder / SVG).read_text(), ()
    if (folder / FAILED).is_file():
        return "", (f"the timeline could not be drawn: {(folder / FAILED).read_text().strip().splitlines()[-1]}",)
    size = _trace_bytes(folder)
    return "", (f"no timeline: the trace has {size / 1e6:.1f} MB" if size else "no timeline: there is no trace",)
