# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's folder read back, its pictures and its page."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.judge.verdict_types import Finding
from harness.model.events import Kind
from harness.report.explain_verdict import cited_by
from harness.report.latency import Latency
from harness.results import AcceptedFinding, Key, Row, RunResult
from harness.run.drawings import FAILED, PERFETTO, SVG, read_latencies, write_drawings
from harness.run.report_folder import page_data, read_run, write_page
from harness.run.run_folder import RunFolder
from harness.status import Status
from tests.unit.report.judged import DATA, golden
from tests.unit.rows import row_of

NOW = datetime.datetime(2026, 11, 22, 9, 30, 0)
A, B = Key("S29", "debian-6.1"), Key("S29", "noio-6.1", 2)


def folder_of(root: Path, result: RunResult) -> Path:
    folder = RunFolder.create(root, NOW)
    for row in result.rows:
        folder.finish(row)
    folder.write(dataclasses.replace(result, run=folder.path.name))
    return folder.path


def test_a_run_is_read_back_as_it_was(tmp_path: Path) -> None:
    rows = (row_of(A, Status.PASS, title="twice", seconds=2.5), row_of(B, Status.FAIL, "D05: lost"))
    result = RunResult("r", "apf run", (A, B, Key("S30", "k")), rows, {"a": "b"}, frozenset({"S32"}),
                       (AcceptedFinding("F1", ("debian-*",), "known"),), True, 12.5)  # fmt: skip
    folder = folder_of(tmp_path, result)
    assert read_run(folder) == dataclasses.replace(result, run=folder.name)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the folder of a run"):
        read_run(tmp_path)
    folder = folder_of(tmp_path, RunResult("r", "", (A,), (row_of(A, Status.PASS),)))
    (folder / A.folder / "verdict.json").unlink()
    with pytest.raises(UsageError, match="is missing"):
        read_run(folder)


def test_each_verdict_is_held_against_the_last_one_before(tmp_path: Path) -> None:
    old = folder_of(tmp_path, RunResult("", "", (A, B), (row_of(A, Status.FAIL, "D05: x"), row_of(B, Status.PASS))))
    mid = folder_of(tmp_path, RunResult("", "", (A,), (row_of(A, Status.PASS),)))
    result = RunResult("", "", (A, B), (row_of(A, Status.PASS), row_of(B, Status.FAIL, "D05: x")))
    new = folder_of(tmp_path, result)
    folder_of(tmp_path, RunResult("", "", (A,), (row_of(A, Status.ERROR, "later"),)))
    past = page_data(new, result).past
    assert {k: (p.run, p.word) for k, p in past.items()} == {A: (mid.name, "PASS"), B: (old.name, "PASS")}
    page = write_page(new, result)
    assert "Changed since" in page.read_text() and page.name == "index.html"


def test_a_capture_is_drawn_and_on_the_page(tmp_path: Path) -> None:
    judged = golden("captures", "S29")
    assert judged.evidence is not None
    result = RunResult("", "", (A,), (Row(A, judged.verdict, "twice"),))
    folder = folder_of(tmp_path, result)
    where = folder / A.folder
    shutil.copytree(DATA / "captures/S29", where / "capture")
    write_drawings(where, judged)
    assert (where / SVG).read_text().startswith("<svg")
    assert gzip.decompress((where / PERFETTO).read_bytes())
    assert len(read_latencies(where)[Latency.TOKEN]) == sum(e.kind is Kind.INJ for e in judged.evidence.events)
    text = write_page(folder, result).read_text()
    assert (where / SVG).read_text() in text and "fault to token" in text and "guest console, last lines" in text


def test_a_picture_never_costs_a_verdict(tmp_path: Path) -> None:
    judged = golden("captures", "S29")
    assert judged.evidence is not None
    broken = dataclasses.replace(judged.evidence, plan=dataclasses.replace(judged.evidence.plan, items=()))
    write_drawings(tmp_path, dataclasses.replace(judged, evidence=broken))
    assert "IndexError" in (tmp_path / FAILED).read_text()
    assert not (tmp_path / SVG).exists()
    write_drawings(tmp_path, judged)
    assert not (tmp_path / FAILED).exists()
    assert json.loads((tmp_path / "latencies.json").read_text())


def test_a_tree_names_commits_where_a_verdict_is_not_green(tmp_path: Path) -> None:
    citation = cited_by(row_of(A, Status.FAIL, "D05: x").verdict, Finding("D05", "x"))[0]
    tree = tmp_path / "linux"
    source = tree / citation.file
    source.parent.mkdir(parents=True)
    source.write_text("int x;\n")
    me = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*me, "commit", "-qm", "kvm: it"]):
        subprocess.run(["git", "-C", tree, *command], check=True)
    rows = tuple(
        dataclasses.replace(row, verdict=dataclasses.replace(row.verdict, findings=(Finding("D05", "x"),)))
        for row in (row_of(A, Status.FAIL, "D05: x"), row_of(B, Status.PASS))
    )
    result = RunResult("", "", (A, B), rows)
    folder = folder_of(tmp_path / "results", result)
    data = page_data(folder, result, {A.kernel: tree, B.kernel: tree})
    assert [c.split(" ", 2)[2] for c in data.folders[A].commits] == [f"kvm: it ({citation})"]
    assert data.folders[B].commits == ()
    assert "kvm: it" in write_page(folder, result, {A.kernel: tree}).read_text()
    assert "kvm: it" not in write_page(folder, result).read_text()
