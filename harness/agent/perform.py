# SPDX-License-Identifier: GPL-2.0-or-later
"""Perform a plan on this host: set up, run the guest, collect, undo, and say how it ended in end.json."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import IO, assert_never

from harness.agent.capture_folder import Capture, KernelLog
from harness.agent.guest.guest_wait import GuestEnd
from harness.agent.guest.linux_run import run_linux
from harness.agent.guest.probe_run import run_probe
from harness.agent.guest.program_run import run_host_program
from harness.agent.guest.qemu import QemuDied
from harness.agent.host.resident import Instances
from harness.agent.host.undo import Journal
from harness.agent.pages.pageout import PreconditionFailed
from harness.agent.session import Session
from harness.contract.capture import FORMAT, AgentStep, RunEnd, StepDetails
from harness.contract.plan import GuestKind, Plan, to_json
from harness.contract.service import AgentOptions
from harness.contract.words import EndStatus
from harness.errors import ApfError, Unsupported


def perform(
    plan: Plan,
    options: AgentOptions,
    *,
    stream: IO[str] | None = None,
    stdin: IO[bytes] | None = None,
    resident: Instances | None = None,
) -> GuestEnd:
    """Perform the plan and leave the capture folder ``options.out``; everything is undone when this returns.

    Ends early, undoing everything, on SIGTERM, SIGINT, SIGHUP, or when ``stdin`` (usually stdin) comes to its end.
    ``resident``: the trace instances of an agent that performs many plans; else they are made and removed.
    Never raises for what happens on the host: the returned GuestEnd, also in end.json, says it.
    """
    capture = Capture(options.out, stream)
    capture.write_text("plan.json", to_json(plan))
    journal = Journal(options.journal or capture.path("journal.jsonl"))
    session = Session(plan, options, capture, journal, resident)
    log = KernelLog()
    try:
        end = asyncio.run(_cancellable(session, stdin))
        capture.step(AgentStep.UNDO)
        problems = journal.undo_all()
        capture.write_text("host/dmesg.txt", log.rest())
        if problems:
            end = GuestEnd(end.status, "; ".join([end.reason, *problems]).lstrip("; "))
        capture.write_json("end.json", RunEnd(FORMAT, plan.nonce, end.status, end.reason, not problems))
        capture.step(AgentStep.END, StepDetails(status=end.status, reason=end.reason, undone=not problems))
        return end
    finally:
        log.close()
        capture.close()


async def _cancellable(session: Session, stdin: IO[bytes] | None) -> GuestEnd:
    """The run as a task that a signal or the end of ``stdin`` cancels."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(_classified(session))
    why = ["terminated"]

    def cut(reason: str) -> None:
        why[0] = reason
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, cut, f"terminated by {number.name}")
    if stdin is not None:
        _watch_stdin(loop, stdin, lambda: cut("the connection that started the agent was closed"))
    try:
        return await task
    except asyncio.CancelledError:
        return GuestEnd(EndStatus.ERROR, why[0])


def _watch_stdin(loop: asyncio.AbstractEventLoop, stdin: IO[bytes], cut: Callable[[], None]) -> None:
    def wait() -> None:
        while os.read(stdin.fileno(), 4096):
            pass
        try:
            loop.call_soon_threadsafe(cut)
        except RuntimeError:
            pass  # the loop is closed: the run was over before

    threading.Thread(target=wait, daemon=True, name="stdin-watch").start()


async def _classified(session: Session) -> GuestEnd:
    """The run, with every error turned into the word for it."""
    try:
        session.capture.step(AgentStep.PREPARE_HOST)
        await asyncio.to_thread(session.prepare_host)
        match session.plan.guest.kind:
            case GuestKind.PROBE:
                return await run_probe(session)
            case GuestKind.LINUX:
                return await run_linux(session)
            case GuestKind.HOST_PROGRAM:
                return await run_host_program(session)
            case _:
                assert_never(session.plan.guest.kind)
    except Unsupported as exc:
        return GuestEnd(EndStatus.UNSUPPORTED, exc.message)
    except PreconditionFailed as exc:
        return GuestEnd(EndStatus.PRECONDITION, exc.message)
    except QemuDied as exc:
        return GuestEnd(EndStatus.QEMU_DIED, exc.message)
    except ApfError as exc:
        return GuestEnd(EndStatus.ERROR, str(exc))
    except OSError as exc:
        return GuestEnd(EndStatus.ERROR, f"{type(exc).__name__}: {exc}")


def exit_code(end: GuestEnd) -> int:
    """0: the capture says how it ended; 3: our or the machine's fault."""
    if end.status is EndStatus.ERROR:
        print(f"apf agent: {end.reason}", file=sys.stderr)
        return 3
    return 0
