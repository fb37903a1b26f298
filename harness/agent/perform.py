# SPDX-License-Identifier: GPL-2.0-or-later
"""Perform a plan on this host: set up, run the guest, collect, undo, and say how it ended in end.json."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
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
from harness.contract.capture import FORMAT, AgentStep, RunEnd, StepDetails, log_marks
from harness.contract.plan import GuestKind, Plan, to_json
from harness.contract.service import AgentOptions
from harness.contract.words import EndStatus
from harness.errors import ApfError, Unsupported


def perform(
    plan: Plan,
    options: AgentOptions,
    *,
    stream: IO[str] | None = None,
    stdin: int | None = None,
    resident: Instances | None = None,
    note_journal: Callable[[str], None] = lambda _path: None,
) -> GuestEnd:
    """Perform the plan and leave the capture folder ``options.out``; everything is undone when this returns.

    Ends early, undoing everything, on SIGTERM, SIGINT, SIGHUP, or when the descriptor ``stdin`` (usually stdin) comes
    to its end; nothing is read from it.
    ``resident``: the trace instances of an agent that performs many plans; else they are made and removed.
    ``note_journal``: told where the changes to this host are noted, before the first is made.
    Never raises for what happens on the host: the returned GuestEnd, also in end.json, says it.
    """
    capture = Capture(options.out, stream)
    capture.write_text("plan.json", to_json(plan))
    journal = Journal(options.journal or capture.path("journal.jsonl"))
    note_journal(os.path.abspath(journal.path))
    session = Session(plan, options, capture, journal, resident)
    log = KernelLog()
    begins, ends = log_marks(plan.nonce)
    try:
        log.mark(begins)
        end = asyncio.run(_cancellable(session, stdin))
        capture.step(AgentStep.UNDO)
        problems = journal.undo_all()
        log.mark(ends)
        capture.write_text("host/dmesg.txt", log.rest())
        if problems:
            end = GuestEnd(end.status, "; ".join([end.reason, *problems]).lstrip("; "))
        capture.write_json("end.json", RunEnd(FORMAT, plan.nonce, end.status, end.reason, not problems))
        capture.step(AgentStep.END, StepDetails(status=end.status, reason=end.reason, undone=not problems))
        return end
    finally:
        log.close()
        capture.close()


async def _cancellable(session: Session, stdin: int | None) -> GuestEnd:
    """The run as a task that a signal or the end of ``stdin`` cancels."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(_classified(session))
    why = ["terminated"]

    def cut(reason: str) -> None:
        why[0] = reason
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, cut, f"terminated by {number.name}")
    with select.epoll() as hung_up:
        if stdin is not None:
            _watch(loop, stdin, hung_up, lambda: cut("the connection that started the agent was closed"))
        try:
            return await task
        except asyncio.CancelledError:
            return GuestEnd(EndStatus.ERROR, why[0])
        finally:
            loop.remove_reader(hung_up.fileno())


def _watch(loop: asyncio.AbstractEventLoop, stdin: int, hung_up: select.epoll, cut: Callable[[], None]) -> None:
    """Call ``cut`` when nobody is at the other end of ``stdin`` any more.  What stands in it is the next request: it is
    not read."""

    def ended() -> None:
        loop.remove_reader(hung_up.fileno())
        cut()

    try:
        hung_up.register(stdin, select.EPOLLRDHUP)
    except PermissionError:  # a file, or /dev/null: it was at its end from the beginning
        loop.call_soon(cut)
    else:
        loop.add_reader(hung_up.fileno(), ended)


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
