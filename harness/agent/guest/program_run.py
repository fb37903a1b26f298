# SPDX-License-Identifier: GPL-2.0-or-later
"""Perform a plan for a host program: start it, keep what it says, see how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

from harness.agent.guest.guest_wait import GuestEnd
from harness.agent.host.guest_cpus import guest_cpus
from harness.agent.session import Session
from harness.contract.capture import AgentStep, StepDetails
from harness.contract.host_program import EXIT, OUTPUT, ProgramEnd
from harness.contract.words import EndStatus


async def run_host_program(session: Session) -> GuestEnd:
    """To its end or the plan's deadline; it is in a process group of its own, which is killed at the latest then."""
    capture, plan = session.capture, session.plan
    os.chmod(session.options.program, 0o700)
    with open(capture.path(OUTPUT), "wb") as output:
        capture.step(AgentStep.GO)
        with guest_cpus():
            process = await asyncio.create_subprocess_exec(
                session.options.program, *plan.guest.cmdline.split(),
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            end = await _ended(process, plan.deadline_s)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if end.status is EndStatus.DONE and process.returncode is not None:
        capture.write_json(EXIT, ProgramEnd(process.returncode))
    capture.step(AgentStep.GUEST_ENDED, StepDetails(status=end.status, reason=end.reason))
    return end


async def _ended(process: asyncio.subprocess.Process, deadline_s: int) -> GuestEnd:
    try:
        await asyncio.wait_for(process.wait(), deadline_s)
    except TimeoutError:
        return GuestEnd(EndStatus.GUEST_TIMEOUT, f"the host program still ran after {deadline_s} s")
    return GuestEnd(EndStatus.DONE, "")
