# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs one scenario for Avocado's nrunner.

Each scenario boots a host of its own (4 s alone on a machine, 20 s on a busy one).  nrunner starts one process for each
test and ends whatever it leaves behind, so a host that several tests share would need a service beside Avocado that
knows when the job is over.  Who runs many scenarios and does not need Avocado is faster with ``apf run``, where all
scenarios of a kernel share hosts.

Avocado 113 waits for ever for a runner that dies without its last message.  So the scenario is performed by a child
process; this one only watches it, survives what kills the child, and always ends with ``finished``:

    exception or exit in the child      ERROR, with the child's last words
    child killed (the OOM killer)       ERROR "died without a verdict"
    task timeout, job timeout, Ctrl-C   SIGTERM reaches us, the child gets one and time to clean up, then INTERRUPTED
    we are SIGKILLed all the same       the child gets SIGTERM from the kernel (PR_SET_PDEATHSIG) and cleans up
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

from avocado.core.nrunner.app import BaseRunnerApp
from avocado.core.nrunner.runner import BaseRunner
from avocado.core.references import reference_split
from avocado.core.utils.messages import (
    FinishedMessage,
    LogMessage,
    RunningMessage,
    StartedMessage,
    WhiteboardMessage,
)

from harness.artifacts.store import default_root
from harness.avocado_plugin.avocado_result import AvocadoResult, read_result
from harness.avocado_plugin.resolver import KIND

CLEANUP_S = 45.0
"""What the child gets for a tidy end.  Avocado's own patience has to be longer:
``runner.task.interval.from_soft_to_hard_termination`` at 60 or more."""

_TICK_S = 0.1
_TELL_EVERY_S = 0.5


class ScenarioRunner(BaseRunner):  # type: ignore[misc]  # Avocado has no types
    """See the module's text."""

    name = KIND
    description = "Runner for apf scenarios"
    CONFIGURATION_USED = ["apf.kernel", "apf.allow_unsupported", "apf.accept_findings", "apf.command"]  # noqa: RUF012 - avocado's own type

    def run(self, runnable: Any) -> Iterator[dict[str, Any]]:
        """Messages of one scenario, the last of which is always ``finished``."""
        stop = _Stop()
        stop.install()
        yield StartedMessage.get()
        outcome = AvocadoResult("error", "the runner of this scenario failed")
        try:
            outcome = yield from _perform(runnable, stop)
        except Exception as exc:  # noqa: BLE001 - Avocado would hang for ever without the last message
            outcome = AvocadoResult("error", f"bug in the runner: {type(exc).__name__}: {exc}")
        yield LogMessage.get(f"{outcome.reason}\n{outcome.details}\n".encode())
        yield WhiteboardMessage.get(outcome.whiteboard)
        yield FinishedMessage.get(outcome.result, fail_reason=outcome.reason or None, class_name=KIND)


class _Stop:
    """SIGTERM sets a flag: an exception could strike while a message is half sent."""

    def __init__(self) -> None:
        self.asked = False

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):  # the latter: the terminal was closed
            signal.signal(number, self._on_signal)
        # Ctrl-C reaches the whole process group; Avocado then sends SIGTERM, which leaves time for a verdict.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self.asked = True


def _perform(runnable: Any, stop: _Stop) -> Generator[Any, None, AvocadoResult]:
    path, scenario = reference_split(runnable.uri)
    results = Path(runnable.output_dir or tempfile.mkdtemp(prefix="apf-avocado-")) / "apf"
    command = scenario_command(runnable.config, path, scenario or "*", results)
    _survive_oom()
    with contextlib.ExitStack() as stack:
        slot = stack.enter_context(_slot_file())
        ticker = _Ticker()
        while not _try_lock(slot):
            yield from ticker.tick()
            if stop.asked:
                return AvocadoResult("interrupted", "terminated while waiting for another scenario to end")
        words = stack.enter_context(tempfile.TemporaryFile())
        child = _start(command, words)
        give_up_at = float("inf")
        while child.poll() is None:
            yield from ticker.tick()
            if stop.asked and give_up_at == float("inf"):
                child.terminate()
                give_up_at = time.monotonic() + CLEANUP_S
            if time.monotonic() > give_up_at:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
        words.seek(0)
        said = words.read().decode(errors="replace")
        allowed = str(runnable.config.get("apf.allow_unsupported") or "").split()
        return read_result(results, child.returncode, said, stopped=stop.asked, allowed=allowed)


def scenario_command(config: dict[str, Any], path: str, scenario: str, results: Path) -> list[str]:
    """What the child runs."""
    start = shlex.split(str(config.get("apf.command") or "")) or [sys.executable, "-m", "harness.cli", "run"]
    kernel = str(config.get("apf.kernel") or "debian-6.1")
    words = [*start, scenario, "--scenarios", path, "--kernel", kernel, "--repeats", "1", "--results", str(results)]
    accepted = str(config.get("apf.accept_findings") or "")
    return [*words, "--accept-findings", accepted] if accepted else words


def _start(command: list[str], words: IO[bytes]) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", "--", *command],
        stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    with contextlib.suppress(OSError):
        Path(f"/proc/{child.pid}/oom_score_adj").write_text("0")
    return child


def _survive_oom() -> None:
    """Scenarios create memory pressure on purpose; as root we can ask not to be the victim."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")


def _slot_file() -> IO[str]:
    folder = default_root()
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "avocado.slot").open("w")


def _try_lock(slot: IO[str]) -> bool:
    """One virtual host at a time: Avocado counts tasks, not processors or memory."""
    try:
        fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Ticker:
    """Waits a tick, and says "running" twice a second."""

    def __init__(self) -> None:
        self._told = 0.0

    def tick(self) -> Iterator[dict[str, Any]]:
        if time.monotonic() - self._told > _TELL_EVERY_S:
            self._told = time.monotonic()
            yield RunningMessage.get()
        time.sleep(_TICK_S)


class RunnerApp(BaseRunnerApp):  # type: ignore[misc]  # Avocado has no types
    """``avocado-runner-apf-scenario``."""

    PROG_NAME = "avocado-runner-apf-scenario"
    PROG_DESCRIPTION = "nrunner application for apf scenarios"
    RUNNABLE_KINDS_CAPABLE = [KIND]  # noqa: RUF012 - avocado's own type


def main() -> None:
    """The entry point."""
    RunnerApp(print).run()


if __name__ == "__main__":
    main()
