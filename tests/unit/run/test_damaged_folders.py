# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders that others have copied, linked and edited: a capture's, which then proves nothing, and a run's, which is
refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import CaptureDamaged, UsageError
from harness.run.judge_folder import judge_folder
from harness.run.report_folder import read_run
from harness.status import Status
from tests.unit.judge.golden import load, of_today


def a_link(folder: Path, name: str, to: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(to)


def a_folder_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()


def a_file_for(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name)
    (folder / name).write_text("")


def a_fifo(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


def moved(folder: Path, name: str, to: str) -> None:
    (folder / name).rename(folder / to)


KINDS: dict[str, Callable[[Path], object]] = {
    "a link to nowhere": lambda f: a_link(f, "end.json", "nowhere"),
    "a link to itself": lambda f: a_link(f, "plan.json", "plan.json"),
    "a link to a device that never ends": lambda f: a_link(f, "trace/events.txt", "/dev/zero"),
    "a link to another file": lambda f: a_link(f, "counters/after.json", "before.json"),
    "a link to its own folder": lambda f: [a_file_for(f, "trace"), (f / "trace").unlink(), (f / "trace").symlink_to(f)],
    "a folder for a file": lambda f: a_folder_for(f, "guest/log.bin"),
    "a file for a folder": lambda f: a_file_for(f, "counters"),
    "a pipe for a file": lambda f: a_fifo(f, "progress.jsonl"),
    "no folder trace": lambda f: shutil.rmtree(f / "trace"),
    "no folder guest": lambda f: shutil.rmtree(f / "guest"),
    "no folder host": lambda f: shutil.rmtree(f / "host"),
    "nothing": lambda f: [shutil.rmtree(f), f.mkdir()],
    "no folder": shutil.rmtree,
    "a folder deeper": lambda f: [f.rename(f.parent / "x"), f.mkdir(), (f.parent / "x").rename(f / "capture")],
    "names in capitals": lambda f: moved(f, "end.json", "END.JSON"),
    "a name with a space": lambda f: moved(f, "facts.json", "facts .json"),
    "a name that is no UTF-8": lambda f: os.rename(f / "after.json", os.fsencode(f) + b"/\xff"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_folder_proves_nothing(kind: str, tmp_path: Path) -> None:
    capture = tmp_path / "capture"
    for name, data in of_today(load("S29")).items():
        (capture / name).parent.mkdir(parents=True, exist_ok=True)
        (capture / name).write_bytes(data)
    assert judge_folder(capture, "nowait").status is Status.PASS
    KINDS[kind](capture)
    try:
        assert judge_folder(capture, "nowait").status is Status.INCONCLUSIVE
    except CaptureDamaged:
        pass  # not even the kernel's release is known


NIGHT = next((Path(__file__).parents[2] / "data/nights").iterdir())
CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "of another format": lambda r: r.update(format=2),
    "of no format": lambda r: r.pop("format"),
    "without verdicts": lambda r: r.pop("verdicts"),
    "with a number for verdicts": lambda r: r.update(verdicts=7),
    "with verdicts that are null": lambda r: r.update(verdicts=[None]),
    "with a verdict without a file": lambda r: r.update(verdicts=[{"scenario": "S1", "kernel": "k", "repeat": 1}]),
    "with a time that is a text": lambda r: r.update(seconds="long"),
    "with a time that is a list": lambda r: r.update(seconds=[]),
    "with findings that are text": lambda r: r.update(accepted_findings="F1"),
    "with missing verdicts that are numbers": lambda r: r.update(missing=[7]),
    "with nothing allowed": lambda r: r.update(allowed_unsupported=None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_results_that_apf_has_not_written_are_refused(change: str, tmp_path: Path) -> None:
    raw = json.loads((NIGHT / "results.json").read_text())
    raw["verdicts"] = []
    (tmp_path / "results.json").write_text(json.dumps(raw))
    read_run(tmp_path)
    CHANGES[change](raw)
    (tmp_path / "results.json").write_text(json.dumps(raw))
    with pytest.raises(UsageError, match=str(tmp_path)):
        read_run(tmp_path)
