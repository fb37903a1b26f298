# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's folder read back, and its page written: by each run, and by `apf report` for one of long ago."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.contract.capture import NO_TRACE_DAT, TRACE_DAT
from harness.contract.plan import Plan, from_json
from harness.errors import UsageError
from harness.judge.comparison import Comparison
from harness.judge.verdict_types import Verdict
from harness.report.explain_verdict import cited_by
from harness.report.page.build_page import build_page
from harness.report.page.page_data import PageData, PastVerdict, VerdictFolder
from harness.results import AcceptedFinding, Key, Row, RunResult
from harness.run.area_commits import area_commits
from harness.run.compare_results import compare_results
from harness.run.drawings import FAILED, SVG, read_latencies
from harness.run.whole_file import write_whole
from harness.status import Status

PAGE = "index.html"
_BACK = 30
"""So many earlier runs are looked through for the last verdict about a scenario."""
_CONSOLES = {
    "guest console": "guest/console.txt",
    "QEMU": "guest/qemu.txt",
    "host console": "host/console.txt",
    "host dmesg": "host/dmesg.txt",
}
_TAIL = 8192
_NOT_SHELL = re.compile(r"^(#.*)?$")


def read_run(folder: Path) -> RunResult:
    """The result of a run from its results.json and the verdict.json of each verdict.

    :raise UsageError: it is no run's folder, or a file in it is not what it should be.
    """
    raw = _results(folder)
    try:
        return _run_of(folder, raw)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as exc:
        raise UsageError(f"{folder} is not the folder of a run: {exc!r}") from exc


def _run_of(folder: Path, raw: dict[str, Any]) -> RunResult:
    rows = []
    for told in raw["verdicts"]:
        file = folder / told["verdict_file"]
        if not file.is_file():
            raise UsageError(f"{file} is missing")
        rows.append(Row(_key(told), Verdict.from_json(file.read_text()), told["title"], float(told["seconds"])))
    return RunResult(
        run=raw["run"],
        command=raw["command"],
        planned=(*(row.key for row in rows), *(_key(key) for key in raw["missing"])),
        rows=tuple(rows),
        facts=raw["facts"],
        allowed=frozenset(raw["allowed_unsupported"]),
        accepted=tuple(
            AcceptedFinding(a["finding"], tuple(a["kernels"]), a["reason"]) for a in raw.get("accepted_findings", ())
        ),
        interrupted=raw["interrupted"],
        seconds=float(raw["seconds"]),
        troubles=tuple(raw.get("troubles", ())),
        refused=tuple(raw.get("refused", ())),
    )


def _results(folder: Path) -> dict[str, Any]:
    """:raise UsageError: there is no results.json, or none that this reads."""
    try:
        raw = json.loads((folder / "results.json").read_text())
    except (OSError, ValueError) as exc:
        raise UsageError(f"{folder} is not the folder of a run: {exc}") from exc
    if not isinstance(raw, dict) or raw.get("format") != 1:
        raise UsageError(f"{folder}/results.json is not of format 1")
    return raw


def _key(raw: Mapping[str, Any]) -> Key:
    return Key(raw["scenario"], raw["kernel"], raw["repeat"])


def page_data(folder: Path, result: RunResult, trees: Mapping[str, Path] | None = None) -> PageData:
    """What is in the folders of a run's verdicts, what earlier runs said, and the comparison of two kernels.

    :param trees: git trees of kernels, by the kernel's name: commits are named from them where a verdict is not green.
    """
    folders = {key: read_verdict_folder(folder / key.folder) for key in result.planned}
    for row in result.rows:
        tree = (trees or {}).get(row.key.kernel)
        if tree is not None and row.verdict.findings and not row.verdict.status.as_predicted:
            commits = area_commits(tree, cited_by(row.verdict, row.verdict.findings[0]))
            folders[row.key] = replace(folders[row.key], commits=commits)
    return PageData(result, folders, dict(_past(folder, result)), _comparisons(result, folders))


def read_verdict_folder(folder: Path) -> VerdictFolder:
    """What belongs to a verdict; what is not there is empty."""
    plan = folder / "plan.json"
    notes = []
    if (folder / FAILED).is_file():
        notes.append(f"the timeline could not be drawn: {(folder / FAILED).read_text().strip().splitlines()[-1]}")
    notes += trace_dat_notes(folder)
    return VerdictFolder(
        plan=from_json(Plan, plan.read_text()) if plan.is_file() else None,
        repeat=_repeat(folder / "repeat.sh"),
        consoles={name: _tail(folder / "capture" / file) for name, file in _CONSOLES.items()},
        timeline=(folder / SVG).read_text() if (folder / SVG).is_file() else "",
        timeline_notes=tuple(notes),
        latencies=read_latencies(folder),
    )


def trace_dat_notes(folder: Path) -> list[str]:
    """Where a verdict's trace.dat is, or why there is none although it was asked for; nothing where it was not."""
    file, why = folder / "capture" / TRACE_DAT, folder / "capture" / NO_TRACE_DAT
    if file.is_file():
        return [f"for KernelShark: {folder.name}/capture/{TRACE_DAT} ({file.stat().st_size / 1e6:.1f} MB)"]
    return [f"no {TRACE_DAT}: {why.read_text().strip()}"] if why.is_file() else []


def _repeat(script: Path) -> str:
    lines = script.read_text().splitlines() if script.is_file() else []
    return next((line.removeprefix("exec ") for line in lines if not _NOT_SHELL.match(line)), "")


def _tail(file: Path) -> str:
    if not file.is_file():
        return ""
    with file.open("rb") as f:
        f.seek(max(file.stat().st_size - _TAIL, 0))
        return f.read().decode(errors="replace")


def _comparisons(result: RunResult, folders: Mapping[Key, VerdictFolder]) -> tuple[Comparison, ...]:
    kernels = list(dict.fromkeys(key.kernel for key in result.planned))
    plans = {key: folder.plan for key, folder in folders.items() if folder.plan is not None}
    if len(kernels) != 2:
        return ()
    whole = all(row.key in plans for row in result.rows)
    return compare_results(result, plans.__getitem__, *kernels) if whole else ()


def _past(folder: Path, result: RunResult) -> Iterator[tuple[Key, PastVerdict]]:
    """The last verdict about each key in the runs beside this one that began before it."""
    wanted = set(result.planned)
    before = sorted((p for p in folder.resolve().parent.iterdir() if _is_before(p, folder.resolve())), reverse=True)
    for run in before[:_BACK]:
        try:
            told = _results(run)["verdicts"]
        except UsageError:
            continue
        for one in told:
            key = _key(one)
            if key in wanted:
                wanted.discard(key)
                yield key, PastVerdict(run.name, " ".join((one["verdict"], *_shown(one))))


def _shown(told: Mapping[str, Any]) -> Iterator[str]:
    """What makes "FINDING F1" of FINDING, as Verdict.word does."""
    if told["verdict"] == Status.FINDING:
        yield from sorted(fault["id"] for fault in told["known_faults"] if fault["shown"])


def _is_before(run: Path, folder: Path) -> bool:
    return not run.is_symlink() and run.name < folder.name and (run / "results.json").is_file()


def write_page(folder: Path, result: RunResult, trees: Mapping[str, Path] | None = None) -> Path:
    """Write the run's page, at once or not at all; ``trees`` as for page_data()."""
    return write_whole(folder / PAGE, build_page(page_data(folder, result, trees)))
