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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.report.results_json import results_json
from harness.results import Key, RunResult
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.waiting import is_gone, wait_until

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
(here / "pid.new").write_text(str(os.getpid()))
(here / "pid.new").rename(here / "pid")
time.sleep(1000)
"""

# As sitecustomize.py: Avocado's time for a task begins when its child is there.
ON_TIME = """
import sys, time
if sys.orig_argv[1].endswith("avocado") and "run" in sys.orig_argv:
    from pathlib import Path
    from types import SimpleNamespace
    from avocado.core.task import statemachine
    def monotonic():
        while not Path({here!r}, "pid").exists():
            time.sleep(0.01)
        return time.monotonic()
    statemachine.time = SimpleNamespace(monotonic=monotonic, sleep=time.sleep)
"""


class Rig:
    """A folder with a scenario, a configuration, and the program that stands for ``apf run``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "X1.toml").write_text(SCENARIO)
        self.script = home / "child.py"
        self.settings = {
            "apf": {"command": f"{sys.executable} {self.script}"},
            "task.timeout": {"running": "600"},
            "runner.task.interval": {"from_soft_to_hard_termination": "600"},
            "datadir.paths": {
                "base_dir": str(home), "test_dir": str(home), "data_dir": str(home / "data"),
                "logs_dir": str(home / "logs"),
            },
        }  # fmt: skip

    def start(self, child: str, *scenarios: str) -> subprocess.Popen[str]:
        """Start ``avocado run`` with this child, for X1 alone or for these."""
        self.script.write_text(child)
        for name in scenarios:
            (self.home / f"{name}.toml").write_text(SCENARIO.replace("X1", name))
        lines = [f"[{s}]\n" + "".join(f"{k} = {v}\n" for k, v in kv.items()) for s, kv in self.settings.items()]
        (self.home / "avocado.conf").write_text("\n".join(lines))
        return subprocess.Popen(
            [AVOCADO, "--config", "avocado.conf", "run", "--disable-sysinfo",
             *(f"{name}.toml" for name in scenarios or ("X1",))],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.home, start_new_session=True,
            env={**os.environ, "HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache"),
                 "PYTHONPATH": str(self.home)},
        )  # fmt: skip

    def end(self, avocado: subprocess.Popen[str], within_s: float = 600) -> dict[str, Any]:
        """The only test of the job, once Avocado has ended by itself."""
        self.wait(avocado, within_s)
        (test,) = self.job()["tests"]
        return {**test, "rc": avocado.returncode}

    def wait(self, avocado: subprocess.Popen[str], within_s: float = 600) -> None:
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

        def is_there() -> bool:
            if avocado.poll() is not None and not (self.home / "pid").exists():
                raise AssertionError(f"avocado ended: {avocado.communicate()[0]}")
            return (self.home / "pid").exists()

        wait_until(is_there, "the child")
        return int((self.home / "pid").read_text())


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def verdict_child(status: Status, reason: str = "", scenario: str = "X1") -> str:
    """A child that writes the results of ``apf run`` and ends."""
    key = Key(scenario, "debian-6.1")
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
    wait_until(lambda: is_gone(pid), "the child's end")


AS_TOLD = {
    Status.PASS: "PASS", Status.FAIL: "FAIL", Status.INCONCLUSIVE: "FAIL", Status.UNSUPPORTED: "FAIL",
    Status.ERROR: "ERROR",
}  # fmt: skip
BAD = {"BOOM": "raise RuntimeError('boom')\n", "SILENT": "print('all is well')\n"}
"""Children without a verdict."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, dict[str, Any]]]:
    """Avocado's exit code, and by scenario what it says: one for each status, and those of BAD."""
    rig = Rig(tmp_path_factory.mktemp("job"))
    children = {status.name: verdict_child(status, "the reason", status.name) for status in AS_TOLD} | BAD
    avocado = rig.start(f"import sys\nexec(next(c for s, c in {children!r}.items() if s in sys.argv))\n", *children)
    rig.wait(avocado)
    return avocado.returncode, {test["name"].rpartition(":")[2]: test for test in rig.job()["tests"]}


@pytest.mark.long
@pytest.mark.parametrize("status", AS_TOLD)
def test_verdicts(job: tuple[int, dict[str, dict[str, Any]]], status: Status) -> None:
    rc, tests = job
    test = tests[status.name]
    assert (test["status"], rc) == (AS_TOLD[status], 1)
    assert json.loads(test["whiteboard"])["verdicts"][0]["verdict"] == status
    if status is not Status.PASS:
        assert test["fail_reason"] == f"{status}: the reason"


def test_a_pass_alone_is_green(rig: Rig) -> None:
    test = rig.end(rig.start(verdict_child(Status.PASS)))
    assert (test["status"], test["rc"]) == ("PASS", 0)


@pytest.mark.long
def test_unsupported_is_a_skip_only_where_it_is_allowed_by_name(rig: Rig) -> None:
    rig.settings["apf"]["allow_unsupported"] = "X1"
    test = rig.end(rig.start(verdict_child(Status.UNSUPPORTED, "no dm-delay")))
    assert (test["status"], test["rc"]) == ("SKIP", 0)
    assert "no dm-delay" in test["whiteboard"]


@pytest.mark.long
def test_the_real_command_with_a_kernel_that_does_not_exist(rig: Rig) -> None:
    rig.settings["apf"] = {"kernel": "no-such-kernel"}
    test = rig.end(rig.start(""))
    assert test["status"] == "ERROR"
    assert "there is no kernel 'no-such-kernel'" in test["fail_reason"]


@pytest.mark.long
def test_exception_in_the_child(job: tuple[int, dict[str, dict[str, Any]]]) -> None:
    test = job[1]["BOOM"]
    assert test["status"] == "ERROR"
    assert "died without a verdict (exit 1)" in test["fail_reason"]
    assert "RuntimeError: boom" in Path(test["logfile"]).read_text()


@pytest.mark.long
def test_success_without_a_verdict_is_no_success(job: tuple[int, dict[str, dict[str, Any]]]) -> None:
    assert job[1]["SILENT"]["status"] == "ERROR"


@pytest.mark.long
def test_child_killed(rig: Rig) -> None:
    avocado = rig.start(PATIENT.format(here=str(rig.home)))
    os.kill(rig.child_pid(avocado), signal.SIGKILL)
    test = rig.end(avocado)
    assert test["status"] == "ERROR"
    assert "died without a verdict (signal 9)" in test["fail_reason"]


@pytest.mark.long
def test_task_timeout_leaves_time_to_clean_up(rig: Rig) -> None:
    rig.settings["task.timeout"]["running"] = "1"
    (rig.home / "sitecustomize.py").write_text(ON_TIME.format(here=str(rig.home)))
    avocado = rig.start(PATIENT.format(here=str(rig.home)))
    with ended(rig.child_pid(avocado)):
        test = rig.end(avocado)
    assert test["status"] == "INTERRUPTED"
    assert (rig.home / "cleaned").exists()


@pytest.mark.long
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


@pytest.mark.long
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
