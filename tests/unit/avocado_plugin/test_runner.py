# SPDX-License-Identifier: GPL-2.0-or-later
"""The runner under the real Avocado, with what is known to hang or mislead it: a child that fails, dies or never ends.

The child is a small program instead of ``apf run``, so that it can misbehave on purpose; everything else is real.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.report.results_json import results_json
from harness.results import Key, RunResult
from harness.status import Status
from tests.unit.rows import row_of

AVOCADO = Path(sys.executable).with_name("avocado")
SCENARIO = """
id = "X1"
title = "one page"
[pages.f]
groups = 1
[[steps]]
touch = "f"
"""
# Says that it is there, and that it was told to end and cleaned up.
PATIENT = """
import os, signal, sys, time
from pathlib import Path
here = Path({here!r})
def end(*_):
    (here / "cleaned").write_text("yes")
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
(here / "pid").write_text(str(os.getpid()))
time.sleep(120)
"""


class Rig:
    """A folder with a scenario, a configuration, and the program that stands for ``apf run``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "X1.toml").write_text(SCENARIO)
        self.script = home / "child.py"
        self.settings = {
            "apf": {"command": f"{sys.executable} {self.script}"},
            "task.timeout": {"running": "60"},
            "runner.task.interval": {"from_soft_to_hard_termination": "60"},
            "datadir.paths": {
                "base_dir": str(home), "test_dir": str(home), "data_dir": str(home / "data"),
                "logs_dir": str(home / "logs"),
            },
        }  # fmt: skip

    def start(self, child: str, *words: str) -> subprocess.Popen[str]:
        """Start ``avocado run`` with this child."""
        self.script.write_text(child)
        lines = [f"[{s}]\n" + "".join(f"{k} = {v}\n" for k, v in kv.items()) for s, kv in self.settings.items()]
        (self.home / "avocado.conf").write_text("\n".join(lines))
        return subprocess.Popen(
            [AVOCADO, "--config", "avocado.conf", "run", "--disable-sysinfo", *words, "X1.toml"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.home, start_new_session=True,
            env={**os.environ, "HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache")},
        )  # fmt: skip

    def end(self, avocado: subprocess.Popen[str], within_s: float = 90) -> dict[str, Any]:
        """The only test of the job, once Avocado has ended by itself."""
        self.wait(avocado, within_s)
        (test,) = self.job()["tests"]
        return {**test, "rc": avocado.returncode}

    def wait(self, avocado: subprocess.Popen[str], within_s: float = 90) -> None:
        """Until Avocado has ended by itself."""
        try:
            avocado.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            os.killpg(avocado.pid, signal.SIGKILL)
            said, _ = avocado.communicate()
            pytest.fail(f"avocado hangs: {said}")

    def job(self) -> dict[str, Any]:
        """What Avocado wrote of the job that ended."""
        (results,) = (self.home / "logs").glob("job-*/results.json")
        found: dict[str, Any] = json.loads(results.read_text())
        return found

    def child_pid(self, avocado: subprocess.Popen[str]) -> int:
        """The pid of a PATIENT child, once it is there."""
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            if (self.home / "pid").exists() and (self.home / "pid").read_text():
                return int((self.home / "pid").read_text())
            if avocado.poll() is not None:
                raise AssertionError(f"avocado ended: {avocado.communicate()[0]}")
            time.sleep(0.1)
        raise AssertionError("the child never started")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def verdict_child(status: Status, reason: str = "") -> str:
    """A child that writes the results of ``apf run`` and ends."""
    key = Key("X1", "debian-6.1")
    only = row_of(key, status, reason)
    files = {
        "results.json": results_json(RunResult("r", "", (key,), (only,))),
        f"{only.folder}/verdict.json": only.verdict.to_json(),
    }
    return (
        "import sys\nfrom pathlib import Path\n"
        "out = Path(sys.argv[sys.argv.index('--results') + 1]) / 'latest'\n"
        f"(out / {only.folder!r}).mkdir(parents=True)\n"
        f"for name, text in {files!r}.items():\n    (out / name).write_text(text)\n"
    )


@contextmanager
def ended(pid: int) -> Iterator[None]:
    """After the body, the process must be gone."""
    yield
    give_up = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < give_up:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("status", "avocado_status", "rc"),
    [
        (Status.PASS, "PASS", 0),
        (Status.FAIL, "FAIL", 1),
        (Status.INCONCLUSIVE, "FAIL", 1),
        (Status.UNSUPPORTED, "FAIL", 1),
        (Status.ERROR, "ERROR", 1),
    ],
)
def test_verdicts(rig: Rig, status: Status, avocado_status: str, rc: int) -> None:
    test = rig.end(rig.start(verdict_child(status, "the reason")))
    assert (test["status"], test["rc"]) == (avocado_status, rc)
    assert json.loads(test["whiteboard"])["verdicts"][0]["verdict"] == status
    if status is not Status.PASS:
        assert test["fail_reason"] == f"{status}: the reason"


def test_unsupported_is_a_skip_only_where_it_is_allowed_by_name(rig: Rig) -> None:
    rig.settings["apf"]["allow_unsupported"] = "X1"
    test = rig.end(rig.start(verdict_child(Status.UNSUPPORTED, "no dm-delay")))
    assert (test["status"], test["rc"]) == ("SKIP", 0)
    assert "no dm-delay" in test["whiteboard"]


def test_the_real_command_with_a_kernel_that_does_not_exist(rig: Rig) -> None:
    rig.settings["apf"] = {"kernel": "no-such-kernel"}
    test = rig.end(rig.start(""))
    assert test["status"] == "ERROR"
    assert "there is no kernel 'no-such-kernel'" in test["fail_reason"]


def test_exception_in_the_child(rig: Rig) -> None:
    test = rig.end(rig.start("raise RuntimeError('boom')"))
    assert test["status"] == "ERROR"
    assert "died without a verdict (exit 1)" in test["fail_reason"]
    assert "RuntimeError: boom" in Path(test["logfile"]).read_text()


def test_success_without_a_verdict_is_no_success(rig: Rig) -> None:
    assert rig.end(rig.start("print('all is well')"))["status"] == "ERROR"


def test_child_killed(rig: Rig) -> None:
    avocado = rig.start(PATIENT.format(here=str(rig.home)))
    os.kill(rig.child_pid(avocado), signal.SIGKILL)
    test = rig.end(avocado)
    assert test["status"] == "ERROR"
    assert "died without a verdict (signal 9)" in test["fail_reason"]


def test_task_timeout_leaves_time_to_clean_up(rig: Rig) -> None:
    rig.settings["task.timeout"]["running"] = "15"  # the child has to have started by then, on a busy machine too
    avocado = rig.start(PATIENT.format(here=str(rig.home)))
    with ended(rig.child_pid(avocado)):
        test = rig.end(avocado)
    assert test["status"] == "INTERRUPTED"
    assert (rig.home / "cleaned").exists()


def test_ctrl_c(rig: Rig) -> None:
    """Python raises KeyboardInterrupt wherever Avocado's event loop is, which may be in the task that files messages
    (plugins/runner_nrunner.py:_update_status); the test then has no entry, and ``Result._reconcile`` counts it as
    skipped.  So who is interrupted is counted; what is ours to do is the same.
    """
    avocado = rig.start(PATIENT.format(here=str(rig.home)))
    with ended(rig.child_pid(avocado)):
        os.killpg(avocado.pid, signal.SIGINT)
        rig.wait(avocado)
    job = rig.job()
    assert job["interrupt"] + job["skip"] == job["total"] == 1
    assert [test["status"] for test in job["tests"]] == ["INTERRUPTED"] * job["interrupt"]
    assert avocado.returncode & 8
    assert (rig.home / "cleaned").exists()


def test_runner_killed_ends_the_child(rig: Rig) -> None:
    avocado = rig.start(PATIENT.format(here=str(rig.home)))
    pid = rig.child_pid(avocado)
    runner = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    try:
        with ended(pid):
            os.kill(runner, signal.SIGKILL)
        assert (rig.home / "cleaned").exists()
    finally:
        # Avocado itself would now wait for ever: its known limit, which `make e2e` does not depend on.
        os.killpg(avocado.pid, signal.SIGKILL)
        avocado.communicate()
