# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that floods us: with output, with a line that never ends, with errors.  With real commands of this machine."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest

from harness.errors import HostLost
from harness.hosts import local
from harness.hosts import stream as module
from harness.hosts.deadline import Deadline
from harness.hosts.local import LocalStream
from harness.hosts.reserved_host import BareHost
from harness.hosts.stream import Lines, Stream
from tests.unit.agent.conftest import frozen
from tests.unit.waiting import HANG_S, is_gone, state_of, wait_until


class Here(BareHost):
    """Commands of this machine as we are."""

    name = "here"

    def start(self, argv: list[str]) -> Stream:
        return LocalStream(argv)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OUTPUT", 1 << 20)
    monkeypatch.setattr(module, "MOST_LINE", 1 << 18)


def test_endless_output_is_cut_and_its_command_ended(tmp_path: Path) -> None:
    with pytest.raises(HostLost, match="sent more than 1 MiB"):
        Here().run(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec cat /dev/zero"], deadline_s=HANG_S)
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: is_gone(pid), "the command's end")


def test_a_line_without_an_end() -> None:
    with contextlib.closing(LocalStream(["cat", "/dev/zero"])) as stream, pytest.raises(HostLost, match="a line of"):
        Lines(stream).next(Deadline.after(HANG_S, "a line"))


def test_a_long_line_that_ends_is_a_line() -> None:
    words = ["sh", "-c", "head -c 200000 /dev/zero; echo; echo next"]
    with contextlib.closing(LocalStream(words)) as stream:
        lines = Lines(stream)
        first = lines.next(Deadline.after(HANG_S, "a line"))
        assert first is not None and len(first) == 200_000
        assert lines.next(Deadline.after(HANG_S, "a line")) == "next"


def test_errors_are_kept_up_to_a_limit() -> None:
    done = Here().run(["sh", "-c", "head -c 6000000 /dev/zero >&2; echo done"], deadline_s=HANG_S)
    assert (done.code, done.stdout, len(done.stderr)) == (0, b"done\n", module.MOST_ERRORS)


@pytest.mark.usefixtures("host_settings")
def test_a_command_that_cannot_be_killed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps in the kernel; one under sudo is not ours to kill."""
    for name in ("_UNDO_S", "_KILLED_S"):
        monkeypatch.setattr(local, name, 0.2)
    with frozen(tmp_path) as folder:
        stream = LocalStream(["sh", "-c", f"echo x > {folder}/file"])
        wait_until(lambda: state_of(stream._process.pid) == "D", "a command that sleeps in the kernel")
        closing = threading.Thread(target=stream.close, daemon=True)
        closing.start()
        closing.join(HANG_S)
        assert not closing.is_alive()
    assert b"sh still runs 0.2 s after SIGKILL, and is left" in stream.errors()
    assert stream._process.wait(HANG_S) < 0
