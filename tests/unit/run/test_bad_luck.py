# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole runs that go wrong at a chosen moment.  Run by ``make test-host``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.contract.words import EndStatus
from harness.evidence.decode import read_end
from harness.hosts import ssh_link
from harness.results import Row, RunResult
from harness.run.judge_folder import read_capture
from harness.run.request import Request
from harness.run.runner import run
from harness.status import Status
from tests.unit.hosts.qemus import qemus
from tests.unit.waiting import HANG_S, is_gone, wait_until

pytestmark = pytest.mark.host

QUICK = """
id = "{id}"
title = "one resident page"
deadline_s = 30
[swap]
kind = "none"
[pages.f]
groups = 1
start = "populated"
[[steps]]
touch = "f"
"""
ENDLESS = """
id = "{id}"
title = "a guest that does nothing for ten minutes"
deadline_s = {deadline}
[swap]
kind = "none"
[pages.f]
groups = 1
start = "populated"
[[steps]]
touch = "f"
[[steps]]
pause = true
pause_us = 600000000
"""


class Listener:
    """An observer that does something once, at the first progress that ends with a word."""

    def __init__(self, word: str, action: object = None) -> None:
        self.word = word
        self.action = action
        self.rows: list[Row] = []

    def scope(self, prefix: str) -> None: ...

    def line(self, text: str = "") -> None: ...

    def verdict(self, row: Row) -> None:
        self.rows.append(row)

    def progress(self, what: str, done: float | None = None) -> None:
        if what == self.word and callable(self.action):
            action, self.action = self.action, None
            action()


def request(tmp_path: Path, **files: str) -> Request:
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text.format(id=name, deadline=5))
    return Request(scenario_paths=(tmp_path,), results=tmp_path / "results")


def signal_qemus(number: signal.Signals) -> None:
    for pid in qemus(os.getpid()):
        os.kill(pid, number)


def test_a_killed_qemu_is_an_error_and_the_next_scenario_has_a_fresh_host(tmp_path: Path) -> None:
    listener = Listener("go", lambda: signal_qemus(signal.SIGKILL))
    result, folder = run(request(tmp_path, A=ENDLESS, B=QUICK), listener)
    assert [row.status for row in result.rows] == [Status.ERROR, Status.PASS]
    assert "SIGKILL" in result.rows[0].verdict.reason
    assert result.exit_code == 3
    assert len(list((folder / "hosts").iterdir())) == 2
    assert qemus(os.getpid()) == []


def fall_silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str) -> tuple[RunResult, Path]:
    """A stopped QEMU is as silent as one whose processors hang."""
    listener = Listener(step, lambda: signal_qemus(signal.SIGSTOP))
    monkeypatch.setattr(ssh_link, "_SILENCE_S", 6.0)
    monkeypatch.setattr(ssh_link, "_ANSWER_S", 6.0)
    return run(request(tmp_path, A=QUICK), listener)


def test_a_host_that_falls_silent_before_the_guest_is_let_go_is_replaced_once_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, folder = fall_silent(monkeypatch, tmp_path, "start-guest")
    (row,) = result.rows
    assert row.status is Status.PASS
    assert len(row.verdict.retries) == 1 and row.verdict.retries[0]
    assert len(list((folder / "hosts").iterdir())) == 2
    assert qemus(os.getpid()) == []


def test_a_host_that_falls_silent_later_is_an_error_and_nothing_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, folder = fall_silent(monkeypatch, tmp_path, "go")
    (row,) = result.rows
    assert row.status is Status.ERROR
    assert len(list((folder / "hosts").iterdir())) == 1
    assert qemus(os.getpid()) == []


def test_a_guest_that_never_finishes_ends_at_its_deadline_and_its_host_is_not_used_again(tmp_path: Path) -> None:
    result, folder = run(request(tmp_path, A=ENDLESS, B=QUICK), Listener(""))
    # The model knows that this program cannot end in time, so the timeout itself is no divergence.
    assert read_end(read_capture(folder / result.rows[0].folder / "capture")).status is EndStatus.GUEST_TIMEOUT
    assert result.rows[1].status is Status.PASS
    assert len(list((folder / "hosts").iterdir())) == 2


def test_ctrl_c_reports_what_has_finished(tmp_path: Path) -> None:
    count = iter(range(10))

    def interrupt_second() -> None:
        raise KeyboardInterrupt

    class Second(Listener):
        def progress(self, what: str, done: float | None = None) -> None:
            if what == "go" and next(count) == 1:
                interrupt_second()

    result, folder = run(request(tmp_path, A=QUICK, B=QUICK, C=QUICK), Second(""))
    assert [(row.key.scenario, row.status) for row in result.rows] == [("A", Status.PASS)]
    assert [key.scenario for key in result.missing] == ["B", "C"]
    assert result.exit_code == 130
    assert json.loads((folder / "results.json").read_text())["interrupted"] is True
    assert qemus(os.getpid()) == []


def start_apf(tmp_path: Path) -> tuple[subprocess.Popen[str], int]:
    """``apf run`` of an endless scenario, at the moment when its guest runs, and the pid of its QEMU."""
    (tmp_path / "A.toml").write_text(ENDLESS.format(id="A", deadline=300))
    apf = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "run", "--scenarios", tmp_path, "--results", tmp_path / "results"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert apf.stdout is not None
    for line in apf.stdout:
        if line.rstrip().endswith(": go"):
            (pid,) = qemus(apf.pid)
            return apf, pid
    raise AssertionError(f"apf ended early: {apf.communicate()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_in_order(tmp_path: Path, number: int) -> None:
    apf, qemu = start_apf(tmp_path)
    os.killpg(apf.pid, number)  # as a terminal does: to the whole group
    said, errors = apf.communicate(timeout=HANG_S)
    assert apf.returncode == 130, errors
    assert "Traceback" not in errors
    assert "missing" in said
    wait_until(lambda: is_gone(qemu), "QEMU's end")
    raw = json.loads((tmp_path / "results/latest/results.json").read_text())
    assert (raw["exit_code"], raw["interrupted"]) == (130, True)


def test_sigkill_leaves_no_qemu(tmp_path: Path) -> None:
    apf, qemu = start_apf(tmp_path)
    apf.kill()
    apf.communicate(timeout=HANG_S)
    wait_until(lambda: is_gone(qemu), "QEMU's end")
    assert json.loads((tmp_path / "results/latest/results.json").read_text())["missing"]
