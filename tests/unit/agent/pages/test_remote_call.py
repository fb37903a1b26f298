# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls inside a real process, to which signals come all the time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.agent.pages.remote_call import call, call_apart
from harness.errors import InfraFault
from tests.unit.agent.conftest import root_only
from tests.unit.waiting import HANG_S

pytestmark = root_only
_GETPID, _CLOSE = 39, 3
_EBADF = 9
_CALLS = 100
_TARGET = """
import signal, sys
heard = 0
def hear(*_):
    global heard
    heard += 1
signal.signal(signal.SIGUSR1, hear)
signal.signal(signal.SIGALRM, hear)
if sys.argv[1] == "alarms":
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
print("ready", flush=True)
for line in sys.stdin:
    if line == "end\\n":
        break
signal.setitimer(signal.ITIMER_REAL, 0)
print(heard, flush=True)
"""


@contextmanager
def target(how: str = "quiet") -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _TARGET, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def heard_by(process: subprocess.Popen[str]) -> int:
    """How many signals it has heard; it has come to its end in order."""
    out, _ = process.communicate("end\n", timeout=HANG_S)
    assert process.returncode == 0
    return int(out)


def test_a_process_that_waits_makes_the_call_and_goes_on_waiting() -> None:
    with target() as process:
        assert call_apart(process.pid, _GETPID) == process.pid
        assert call_apart(process.pid, _CLOSE, 1 << 20) == -_EBADF
        assert heard_by(process) == 0


def test_signals_that_come_all_the_time_change_no_result() -> None:
    with target("alarms") as process:
        assert {call_apart(process.pid, _GETPID) for _ in range(_CALLS)} == {process.pid}
        assert heard_by(process) > 0


def test_no_signal_is_lost() -> None:
    """Each is sent when the one before may still wait: it is heard at least once behind the last call."""
    with target() as process:
        for _ in range(_CALLS):
            os.kill(process.pid, signal.SIGUSR1)
            assert call_apart(process.pid, _GETPID) == process.pid
        assert 0 < heard_by(process) <= _CALLS


def test_a_process_that_is_stopped_makes_the_call_and_stays_stopped() -> None:
    with target() as process:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert call_apart(process.pid, _GETPID) == process.pid
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as stat:
            assert stat.read().rpartition(")")[2].split()[0] == "T"
        os.kill(process.pid, signal.SIGCONT)
        assert heard_by(process) == 0


def test_stops_and_continues_change_no_result() -> None:
    over = threading.Event()

    def tease(pid: int) -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGCONT)

    with target("alarms") as process:
        teaser = threading.Thread(target=tease, args=(process.pid,))
        teaser.start()
        try:
            assert {call_apart(process.pid, _GETPID) for _ in range(_CALLS)} == {process.pid}
        finally:
            over.set()
            teaser.join()
        os.kill(process.pid, signal.SIGCONT)
        assert heard_by(process) > 0


def test_a_process_that_is_gone_cannot_be_traced() -> None:
    with target() as process:
        process.kill()
        process.wait()
        with pytest.raises((InfraFault, OSError)):
            call(process.pid, _GETPID)
