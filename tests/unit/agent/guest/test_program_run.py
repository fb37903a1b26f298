# SPDX-License-Identifier: GPL-2.0-or-later
"""A host program that nobody can end: test_perform.py has those that end."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from harness.agent.capture_folder import Capture
from harness.agent.guest import program_run
from harness.agent.guest.guest_wait import GuestEnd
from harness.agent.host.undo import Journal
from harness.agent.session import Session
from harness.contract.plan import Guest, GuestKind
from harness.contract.service import AgentOptions
from harness.contract.words import EndStatus
from tests.unit.agent.conftest import frozen, make_plan
from tests.unit.waiting import HANG_S, state_of, wait_until


@pytest.mark.usefixtures("host_settings")
def test_one_that_sleeps_in_the_kernel_is_left_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the kernel's fault that such a program hangs: the run ends, and says so, before the runner's deadline.

    On a busy machine it may take as much longer as the machine's processors made the host wait.
    """
    monkeypatch.setattr(program_run, "KILLED_SECONDS", 0.5)
    ended = program_run._ended

    def sleeps(pid: int) -> bool:
        return (tmp_path / "pid").exists() and state_of(pid) == "D"

    async def ended_from_then_on(process: asyncio.subprocess.Process, deadline_s: float) -> GuestEnd:
        await asyncio.to_thread(wait_until, lambda: sleeps(process.pid), "a program that sleeps in the kernel")
        return await ended(process, deadline_s)

    monkeypatch.setattr(program_run, "_ended", ended_from_then_on)
    out = str(tmp_path / "out")
    with frozen(tmp_path) as folder, closing(Capture(out)) as capture:
        program = tmp_path / "apf_halted_ways_test"
        program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\necho x > {folder}/file\n")
        guest = Guest(GuestKind.HOST_PROGRAM, workload="apf_halted_ways_test")
        plan = replace(make_plan(deadline_s=1), guest=guest, pages=(), items=())
        journal = Journal(capture.path("journal.jsonl"))
        session = Session(plan, AgentOptions(out, program=str(program), patience=1.5), capture, journal)

        async def bounded() -> GuestEnd:
            return await asyncio.wait_for(program_run.run_host_program(session), HANG_S)

        end = asyncio.run(bounded())
    with suppress(ChildProcessError):  # asyncio has reaped it
        os.waitpid(int((tmp_path / "pid").read_text()), 0)
    assert end == GuestEnd(EndStatus.GUEST_TIMEOUT, "the host program still ran after 1.5 s, and 0.5 s after SIGKILL")
    assert not (tmp_path / "out/program/end.json").exists()
