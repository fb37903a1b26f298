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

KILLED_SECONDS = 20.0
"""How long a program that was killed may take to end: its pages may be on a slow device.  One that sleeps in the kernel
and cannot be woken never does, and is left."""


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
            end = await _ended(process, plan.deadline_s * session.options.patience)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), KILLED_SECONDS)
    if process.returncode is None:
        end = GuestEnd(end.status, f"{end.reason}, and {KILLED_SECONDS:g} s after SIGKILL")
    elif end.status is EndStatus.DONE:
        capture.write_json(EXIT, ProgramEnd(process.returncode))
    capture.step(AgentStep.GUEST_ENDED, StepDetails(status=end.status, reason=end.reason))
    return end


async def _ended(process: asyncio.subprocess.Process, deadline_s: float) -> GuestEnd:
    try:
        await asyncio.wait_for(process.wait(), deadline_s)
    except TimeoutError:
        return GuestEnd(EndStatus.GUEST_TIMEOUT, f"the host program still ran after {deadline_s:g} s")
    return GuestEnd(EndStatus.DONE, "")
