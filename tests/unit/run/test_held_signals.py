# SPDX-License-Identifier: GPL-2.0-or-later
"""A signal that comes while a process is forked: each is caused, in the child's first moment and in the parent's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.waiting import HANG_S

_STRIKES = """
import os, signal
from harness.run.ending import ENDING, OURS

for number in ENDING:  # whatever the shell ignores
    signal.signal(number, OURS.handle)
WHICH = signal.Signals[{signal!r}]
os.register_at_fork(after_in_{side}=lambda: os.kill(os.getpid(), WHICH))
"""
_POOL = (
    _STRIKES
    + """
from tests.unit.run.test_pool import StandIn, perform
from harness.run import pool

pool.start_worker = StandIn
result, _, _ = perform("A", "one two")
print("told by", os.getpid(), sorted(row.status.name for row in result.rows), result.interrupted, flush=True)
"""
)
_JUDGES = (
    _STRIKES
    + """
from harness.run.judging_pool import judging_pool

try:
    with judging_pool() as asked:
        print("told by", os.getpid(), list(asked.map(abs, range(3))), flush=True)
except Exception as exc:
    print("told by", os.getpid(), type(exc).__name__, flush=True)
except KeyboardInterrupt:
    print("told by", os.getpid(), "interrupted", flush=True)
"""
)


def told(script: str, which: str, side: str, folder: Path) -> str:
    """What the script's one process says; nobody else may speak, and nobody may be left."""
    words = [sys.executable, "-c", script.format(signal=which, side=side)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        words, cwd=folder, env={"PYTHONPATH": str(root)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as asks:
        # Comes to an end only when the last process that has inherited its streams has ended.
        out, err = asks.communicate(timeout=HANG_S)
    lines = [line for line in out.splitlines() if line.startswith("told by ")]
    assert len(lines) == 1, out + err
    _, _, pid, what = lines[0].split(" ", 3)
    assert int(pid) == asks.pid, out + err
    return what


@pytest.mark.parametrize("which", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_worker_that_is_struck_at_once_is_no_second_parent(which: str, tmp_path: Path) -> None:
    # SIGTERM ends the worker in order, before it has a job; the others are not meant for it.
    ended = "ERROR" if which == "SIGTERM" else "PASS"
    assert told(_POOL, which, "child", tmp_path) == f"['{ended}', '{ended}'] False"


@pytest.mark.parametrize("which", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_parent_that_is_struck_has_noted_its_worker(which: str, tmp_path: Path) -> None:
    assert told(_POOL, which, "parent", tmp_path) == "[] True"


@pytest.mark.parametrize("which", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_who_judges_and_is_struck_at_once_is_no_second_parent(which: str, tmp_path: Path) -> None:
    expected = "InfraFault" if which == "SIGTERM" else "[0, 1, 2]"
    assert told(_JUDGES, which, "child", tmp_path) == expected


@pytest.mark.parametrize("which", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_who_asks_for_judging_and_is_struck_is_interrupted(which: str, tmp_path: Path) -> None:
    assert told(_JUDGES, which, "parent", tmp_path) == "interrupted"
