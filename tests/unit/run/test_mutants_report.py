# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of mutants from trials on disk: what is drawn, what it links to, how it is repeated."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

from harness.judge.verdict_types import Finding
from harness.report.mutants_text import MutantLine
from harness.results import Key, Row
from harness.run import mutants_report
from harness.run.mutant_trials import KERNEL, Mutant, Trial
from harness.run.mutants_report import page_of, write_mutants_page
from harness.status import Status
from tests.unit.report.judged import DATA, golden

ONE = Mutant("ONE", 1, "about", "R1", ("S29",), ("D05",))
POINT = Mutant("virt/kvm/async_pf.c: !x", 1137, "virt/kvm/async_pf.c:70", "kvm_setup_async_pf", ("S29",), ("D05",))
FOUND = (Finding("D07", "first", line=80), Finding("D05", "a ready event is lost", line=90))


def trial(folder: Path, mutant: Mutant | None, status: Status = Status.FAIL) -> Trial:
    """A trial whose evidence is the golden capture of S29."""
    name = mutant.id_under("S29") if mutant is not None else "S29"
    verdict = golden("captures", "S29").verdict
    verdict = dataclasses.replace(verdict, status=status, findings=FOUND if status is Status.FAIL else ())
    row = Row(Key(name, KERNEL), verdict)
    shutil.copytree(DATA / "captures/S29", folder / row.folder / "capture")
    (folder / row.folder / "verdict.json").write_text(verdict.to_json())
    return Trial(mutant, "S29", row, folder)


def written(tmp_path: Path, mutant: Mutant, *trials: Trial, kernel: str = KERNEL) -> str:
    line = MutantLine(mutant.name, mutant.number, mutant.about, mutant.imitates, (), "caught", "D05")
    page = write_mutants_page(tmp_path, kernel, "apf mutants", [(mutant, line)], trials, lambda t: "told")
    assert page == page_of(tmp_path, kernel) and page.parent == tmp_path
    return page.read_text()


def test_the_capture_that_named_the_fault_is_drawn_and_linked(tmp_path: Path) -> None:
    run = tmp_path / "20261126-1"
    caught = trial(run, ONE)
    text = written(tmp_path, ONE, trial(run, None, Status.PASS), caught)
    assert 'aria-label="timeline of S29' in text
    assert "first divergence: D07" in text, "what comes first in the run"
    assert "names the fault: D05 (trace/events.txt:90): a ready event is lost" in text
    link = next(part.partition('"')[0] for part in text.split('href="') if part.startswith("20261126-1/"))
    assert caught.evidence is not None and (tmp_path / unquote(link)).samefile(caught.evidence)
    assert (caught.evidence / "timeline.svg").is_file()
    assert "again: <code>apf mutants ONE</code>" in text


def test_a_point_is_repeated_by_its_number_under_the_scenario_that_caught_it(tmp_path: Path) -> None:
    text = written(tmp_path, POINT, trial(tmp_path / "20261126-1", POINT), kernel="points-6.1")
    assert "again: <code>apf mutants 1137 --kernel points-6.1 --with S29</code>" in text


def test_a_trace_that_is_too_long_is_not_drawn_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutants_report, "MOST_BYTES", 1000)
    text = written(tmp_path, ONE, trial(tmp_path / "20261126-1", ONE))
    assert "no timeline: the trace has" in text and 'aria-label="timeline of' not in text


def test_a_capture_that_cannot_be_judged_costs_no_page(tmp_path: Path) -> None:
    caught = trial(tmp_path / "20261126-1", ONE)
    assert caught.evidence is not None
    (caught.evidence / "verdict.json").write_text("{}")
    assert "the timeline could not be drawn" in written(tmp_path, ONE, caught)


def test_a_mutant_that_nothing_caught_has_no_timeline(tmp_path: Path) -> None:
    text = written(tmp_path, ONE, trial(tmp_path / "20261126-1", ONE, Status.PASS))
    assert 'aria-label="timeline of' not in text and "under S29" not in text
