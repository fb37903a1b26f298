# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls that come back, that fail, and that never come back."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from harness.agent.host import syscalls
from harness.agent.host.bounded import within
from tests.unit.waiting import HANG_S


def test_a_call_is_made(tmp_path: Path) -> None:
    within(HANG_S, (tmp_path / "made").touch, "touch")
    assert (tmp_path / "made").exists()


def test_an_error_is_the_callers() -> None:
    """A real swapoff(2), of what is no swap area (EINVAL; EPERM where one may not)."""
    with pytest.raises(OSError, match="swapoff /dev/null: ") as caught:
        within(HANG_S, lambda: syscalls.swapoff("/dev/null"), "swapoff /dev/null")
    assert caught.value.errno in (errno.EINVAL, errno.EPERM) and not isinstance(caught.value, TimeoutError)


def _never_comes_back() -> None:
    threading.Event().wait()


def test_what_is_no_error_of_the_kernel_is_no_success() -> None:
    with pytest.raises(OSError, match="a mistake: "):
        within(HANG_S, lambda: int("x") and None, "a mistake")


def test_one_that_never_comes_back_is_killed_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.agent.host.bounded._KILLED_SECONDS", HANG_S)
    fork, children = os.fork, list[int]()

    def noted() -> int:
        children.append(fork())
        return children[-1]

    monkeypatch.setattr(os, "fork", noted)
    with pytest.raises(TimeoutError, match=r"a wait was not through after 0\.2 s"):
        within(0.2, _never_comes_back, "a wait")
    with pytest.raises(ChildProcessError):
        os.waitpid(*children, os.WNOHANG)


def test_one_that_cannot_be_killed_is_left_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that waits for a lock without being interruptible is, for ever."""
    kill, spared = os.kill, []
    monkeypatch.setattr(os, "kill", lambda child, _number: spared.append(child))
    monkeypatch.setattr("harness.agent.host.bounded._KILLED_SECONDS", 0.1)
    with pytest.raises(TimeoutError, match="a lock was not through"):
        within(0.1, _never_comes_back, "a lock")
    assert len(spared) == 1
    kill(spared[0], signal.SIGKILL)
    os.waitpid(spared[0], 0)
