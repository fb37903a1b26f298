# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest is swapped out while nothing of QEMU runs; a QEMU that dies under it is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.agent.capture_folder import Capture
from harness.agent.guest import linux_run, qemu
from harness.agent.guest.cmdline import build_qemu_argv
from harness.agent.guest.guest_wait import GuestEnd, watch_result
from harness.agent.guest.qemu import QemuDied
from harness.agent.host.host_facts import host_facts
from harness.agent.host.undo import Journal
from harness.agent.pages.pageout import PreconditionFailed
from harness.agent.session import Session
from harness.contract.capture import NO_DETAILS, AgentStep, StepDetails
from harness.contract.plan import Guest, GuestKind
from harness.contract.service import AgentOptions
from harness.contract.words import EndStatus
from tests.unit.agent.conftest import make_plan, needs_qemu, root_only
from tests.unit.waiting import state_of, wait_until


def comes_to(pid: int, states: str) -> str:
    wait_until(lambda: state_of(pid) in states, f"a process in {states}")
    return state_of(pid)


@pytest.mark.parametrize("fails", [False, True])
def test_qemu_is_held_still_until_the_totals_are_read(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """Its own threads would bring back what is swapped out, into the swap cache, and the totals with it."""
    seen = []

    def looks(group: object) -> dict[str, int]:
        seen.append(comes_to(qemu.pid, "T"))
        if fails:
            raise PreconditionFailed("1 pages stay in the swap cache")
        return {}

    monkeypatch.setattr(linux_run, "swap_everything_out", looks)
    monkeypatch.setattr(linux_run, "_totals", looks)
    monkeypatch.setattr(linux_run, "_write_precondition", lambda session, totals: seen.append("written"))
    group = SimpleNamespace(stat=lambda: {"anon": 4096})
    session: Any = SimpleNamespace(group=group, capture=SimpleNamespace(step=lambda *_: None))
    with subprocess.Popen(["sleep", "60"]) as qemu:
        try:
            linux_run._swap_out(cast(Session, session), qemu.pid)
        except PreconditionFailed:
            assert fails
        after = comes_to(qemu.pid, "SR")
        qemu.kill()
    assert seen == (["T"] if fails else ["T", "T", "written"]) and after in "SR"


@pytest.mark.parametrize("written", [True, False], ids=["the line is there", "half of it"])
def test_a_guest_that_can_tell_nothing_more_is_not_waited_for(tmp_path: Path, written: bool) -> None:
    """An emulated processor has refused its OUT: it sleeps, and its deadline is minutes away."""
    console = tmp_path / "console.txt"
    line = "[   14.520145] workload: OUT was refused though ioperm() had allowed it\n"
    console.write_text("go\n" + (line if written else line[:40]))
    guest = cast(qemu.Guest, SimpleNamespace(alive=True))
    end = asyncio.run(watch_result(guest, str(tmp_path / "result.txt"), str(console), "END", 60 if written else 0.1))
    assert end.status is EndStatus.GUEST_TIMEOUT
    assert ("can tell nothing more: workload: OUT was refused" in end.reason) is written


def without_kernel(argv: list[str]) -> list[str]:
    """QEMU's command line, of a machine that has nothing to boot."""
    kept, words = [], iter(argv)
    for word in words:
        if word in ("-kernel", "-initrd", "-append"):
            next(words)
        else:
            kept.append(word)
    return kept


def has_ended(pid: int) -> bool:
    """A child of ours with all its threads, so that its sockets are closed."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # it was reaped
        return True


@needs_qemu
@root_only
@pytest.mark.usefixtures("host_settings")
@pytest.mark.parametrize("told", [False, True], ids=["before it is told to go", "before it has heard it"])
def test_qemu_is_killed_when_the_guest_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    """As by a kernel that cannot enter the guest any more: it is that which is to blame, and not we.

    A peer that died is EPIPE for who writes, and ECONNRESET for who reads if it had not read everything.
    """

    class Killing(Capture):
        def write_json(self, name: str, record: object) -> None:
            super().write_json(name, record)
            if name == "facts.json":  # QEMU has begun, and with it the file of results
                self.write_text("guest/result.txt", "READY\n")

        def step(self, step: AgentStep, details: StepDetails = NO_DETAILS) -> None:
            super().step(step, details)
            if step is AgentStep.GO:
                pid = json.loads(Path(self.path("facts.json")).read_text())["run"]["qemu_pid"]
                if told:
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)
                    return
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda: has_ended(pid), "QEMU's end")

    stopped: list[int] = []
    follow = linux_run._follow

    async def follow_the_dying(*words: Any) -> GuestEnd:
        """The word is in the socket then, and QEMU has not read it."""
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
        return await follow(*words)

    monkeypatch.setattr(linux_run, "build_qemu_argv", lambda plan, files: without_kernel(build_qemu_argv(plan, files)))
    monkeypatch.setattr(linux_run, "_swap_out", lambda _session, _pid: None)
    monkeypatch.setattr(linux_run, "_follow", follow_the_dying)
    capture = Killing(str(tmp_path / "out"))
    plan = replace(make_plan(pages=0), guest=Guest(GuestKind.LINUX, workload="touch"))
    journal = Journal(capture.path("journal.jsonl"))
    session = Session(plan, AgentOptions(capture.folder, accel="tcg"), capture, journal, facts=host_facts())
    try:
        if told:
            end = asyncio.run(linux_run.run_linux(session))
            assert end.status is EndStatus.QEMU_DIED and "-9" in end.reason
        else:
            with pytest.raises(QemuDied, match="-9"):
                asyncio.run(linux_run.run_linux(session))
    finally:
        assert journal.undo_all() == []
        capture.close()
