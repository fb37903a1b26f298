# SPDX-License-Identifier: GPL-2.0-or-later
"""A run on a machine of the lab that is broken off at moments nobody chose: its runner is killed, its link is cut or
falls silent, the machine loses its power.  Afterwards the machine is as before, nothing is left here, what has a
verdict can be read, and the next run is as good as any.  Run by ``make test-host``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import select
import signal
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts import layout
from harness.artifacts.images import images
from harness.artifacts.store import Store
from harness.errors import HostLost
from harness.hosts.lab_file import find_lab_host, lab_text
from harness.hosts.ssh import connect
from harness.hosts.ssh_machine import SshMachine
from harness.run.report_folder import read_run
from harness.status import Status
from tests.unit.hosts.lab_machine import APF, NAME, Lab, apf, start_lab
from tests.unit.hosts.machine_look import AGENT, differs, look, prepare_looks

pytestmark = pytest.mark.host

SEED = 20261126
KILLS = 10
SCENARIO = "S23"
BACK_S = 120.0
"""Until the machine is as before: it hears at once of a link that was closed, but each change may resist."""
SILENT_S = 90.0
"""It hears nothing of one that fell silent: harness/hosts/reservation.py waits 60 s."""


def prepared(machine: SshMachine) -> dict[str, str]:
    """How a machine is before any run; it has the folder of runs, which the first reservation makes."""
    prepare_looks(machine, images.agent_zipapp(Store()))
    first = f"python3 -I {AGENT} reserve --name first < /dev/null"
    assert machine.run(["sh", "-c", first], deadline_s=200).code == 0
    return look(machine)


class Bench:
    """A machine of the lab, and a connection for looking at it without a reservation.

    One that does not answer although its processors are busy is replaced: once, because the emulator does that now and
    then to a host whose kernel is patched so often (docs/adr/0005).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._started = 0
        self.start()

    def start(self) -> None:
        self._started += 1
        self.lab = self._stack.enter_context(start_lab(self._folder / str(self._started)))
        self.machine = self._stack.enter_context(connect(self.lab.path, NAME))
        self.before = prepared(self.machine)

    @functools.cached_property
    def whole(self) -> float:
        """How long a run takes that nobody harms, in seconds."""
        began = time.monotonic()
        done = self.lab.apf(self._folder / "whole", SCENARIO)
        assert done.returncode == 0, done.stdout + done.stderr
        return time.monotonic() - began

    def stop(self) -> None:
        self._stack.close()

    def as_before(self, seconds: float) -> None:
        give_up = time.monotonic() + seconds
        try:
            while found := differs(self.before, look(self.machine)):
                assert time.monotonic() < give_up, "\n".join(found)
                time.sleep(1)
        except HostLost as lost:
            told = f"{lost}; the processors are busy: {self.lab.spinning()}; its console:\n{self.lab.console()}"
            assert self._started == 1 and self.lab.spinning(), told
            warnings.warn(f"the machine was replaced: {told}", stacklevel=1)
            self.stop()
            self.start()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("lab"))
    try:
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def running(lab_file: Path, folder: Path, temporary: Path, repeats: int = 1) -> Iterator[subprocess.Popen[str]]:
    """`apf run` on the machine of a file, with a folder of its own for what is temporary."""
    temporary.mkdir(parents=True, exist_ok=True)
    runner = subprocess.Popen(
        [*APF, "run", SCENARIO, "--repeats", str(repeats), "--host", f"ssh:{NAME}", "--lab", str(lab_file),
         "--results", str(folder)],
        cwd=layout.REPOSITORY, env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield runner
    finally:
        runner.kill()
        runner.communicate(timeout=60)


def readable(folder: Path) -> list[Status]:
    """The verdicts that the run has; its page can be written, and each capture that is whole judged again."""
    runs = [path for path in folder.glob("2*") if (path / "results.json").exists()]
    if not runs:
        assert not list(folder.glob("2*/S*")), "evidence without results"
        return []
    (run,) = runs
    result = read_run(run)
    assert result.planned
    page = apf("report", str(run))
    assert page.returncode in (0, 1, 3, 130), page.stdout + page.stderr
    assert "Traceback" not in page.stdout + page.stderr
    for row in result.rows:
        if row.status is Status.PASS:
            again = apf("judge", str(run / row.folder))
            assert again.returncode == 0, again.stdout + again.stderr
    return [row.status for row in result.rows]


def shared() -> set[str]:
    """Shared memory of this machine that no process uses."""
    used = "".join(_text(path) for path in Path("/proc").glob("[0-9]*/maps"))
    return {str(path) for path in Path("/dev/shm").iterdir() if str(path) not in used}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("number", range(KILLS))
def test_a_runner_that_is_killed_at_any_moment_leaves_nothing(number: int, bench: Bench, tmp_path: Path) -> None:
    """By the time that a whole run takes: while it connects, reserves, performs, judges, gives back."""
    moment = bench.whole * (number + random.Random(SEED + number).random()) / KILLS
    there = shared()
    with running(bench.lab.path, tmp_path / "results", tmp_path / "tmp") as runner:
        with contextlib.suppress(subprocess.TimeoutExpired):
            runner.wait(moment)
        runner.kill()
        runner.communicate(timeout=60)
    bench.as_before(BACK_S)
    readable(tmp_path / "results")
    assert shared() <= there
    assert list((tmp_path / "tmp").iterdir()) == []


def test_after_all_that_a_run_is_as_good_as_any(bench: Bench, tmp_path: Path) -> None:
    done = bench.lab.apf(tmp_path, SCENARIO)
    assert done.returncode == 0, done.stdout + done.stderr
    bench.as_before(BACK_S)


class Wire:
    """Forwards TCP from a port of its own, until it is cut (both ends are reset) or falls silent."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.forwarded = 0
        self.silent = False
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._thread.start()

    def _forward(self) -> None:
        while self._listener.fileno() >= 0:
            try:
                ready, _, _ = select.select([self._listener, *self._pairs], [], [], 0.1)
            except (OSError, ValueError):  # cut meanwhile
                return
            for source in ready:
                with contextlib.suppress(OSError):
                    self._pass(source)

    def _pass(self, source: socket.socket) -> None:
        if source is self._listener:
            mine, _ = source.accept()
            other = socket.create_connection(("127.0.0.1", self._target))
            self._pairs |= {mine: other, other: mine}
            return
        data = source.recv(1 << 16)
        if self.silent:  # the other end hears of nothing, not even that this one is closed
            if not data:
                del self._pairs[source]
            return
        self.forwarded += len(data)
        if data:
            self._pairs[source].sendall(data)
        else:
            other = self._pairs.pop(source)
            self._pairs.pop(other, None)
            other.close()
            source.close()

    def cut(self) -> None:
        """The end of every connection, at once."""
        self._listener.close()
        for end in list(self._pairs):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.close()


@pytest.mark.parametrize(("how", "repeats"), [("silent", 1), ("cut", 2)])
def test_a_link_that_is_lost_is_told_and_nothing_is_left(how: str, repeats: int, bench: Bench, tmp_path: Path) -> None:
    """While the guest of the only scenario runs, or that of the second one."""
    entry = find_lab_host(bench.lab.path, NAME)[0]
    wire = Wire(entry.port)
    (tmp_path / "lab.toml").write_text(lab_text(NAME, replace(entry, port=wire.port)))
    with running(tmp_path / "lab.toml", tmp_path / "results", tmp_path / "tmp", repeats) as runner:
        wait_for_go(runner, repeats)
        assert wire.forwarded > 100_000
        if how == "cut":
            wire.cut()
        else:
            wire.silent = True
        said, _ = runner.communicate(timeout=300)
        assert runner.returncode == 3, said
    bench.as_before(BACK_S + (SILENT_S if how == "silent" else 0))
    wire.cut()
    verdicts = readable(tmp_path / "results")
    assert len(verdicts) == repeats and verdicts[-1] is Status.ERROR, said
    assert list((tmp_path / "tmp").iterdir()) == []


def wait_for_go(runner: subprocess.Popen[str], number: int) -> None:
    """Until the guest of its ``number``-th scenario has been let go."""
    assert runner.stdout is not None
    seen: list[str] = []
    for line in runner.stdout:
        seen.append(line)
        number -= line.rstrip().endswith(": go")
        if number == 0:
            return
    raise AssertionError("the run ended early:\n" + "".join(seen))


def test_a_machine_that_loses_its_power_is_told_and_the_next_start_is_clean(bench: Bench, tmp_path: Path) -> None:
    """Of everything: the machine's, the run's, and that of what kept the machine here.  The last test of all, because
    the others' machine is gone then.
    """
    there = shared()
    cut_power(bench.lab, 2, tmp_path / "cut")
    assert shared() <= there
    with start_lab(tmp_path / "again") as lab, connect(lab.path, NAME) as machine:
        fresh = prepared(machine)
        of_each_start = [told for told in differs(bench.before, fresh) if not told.startswith("/proc/sys/vm/")]
        assert not of_each_start  # some sysctls of vm are computed from the memory that is free at boot
        done = lab.apf(tmp_path / "after", SCENARIO)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not differs(fresh, look(machine))


def cut_power(lab: Lab, repeats: int, folder: Path) -> None:
    """Kill the machine's QEMU in the middle of a run."""
    qemu = lab.qemu
    with running(lab.path, folder / "results", folder / "tmp", repeats) as runner:
        wait_for_go(runner, repeats)
        os.kill(qemu, signal.SIGKILL)
        said, _ = runner.communicate(timeout=300)
        assert runner.returncode == 3, said
    assert lab.shell.wait(60) == 3
    verdicts = readable(folder / "results")
    assert len(verdicts) == repeats and verdicts[-1] is Status.ERROR, said
    assert list((folder / "tmp").iterdir()) == []
