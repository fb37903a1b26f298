# SPDX-License-Identifier: GPL-2.0-or-later
"""Perform a plan on this host: set up, run the guest, collect, undo, and say how it ended in end.json."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, assert_never

from harness.agent.capture_folder import Capture, KernelLog
from harness.agent.ending_signals import heard
from harness.agent.guest.guest_wait import GuestEnd
from harness.agent.guest.linux_run import run_linux
from harness.agent.guest.probe_run import run_probe
from harness.agent.guest.program_run import run_host_program
from harness.agent.guest.qemu import QemuDied
from harness.agent.host.caught import Caught, in_words
from harness.agent.host.resident import Instances
from harness.agent.host.undo import Journal
from harness.agent.pages.pageout import PreconditionFailed
from harness.agent.session import Session
from harness.contract.capture import FORMAT, TRACEBACK, AgentStep, RunEnd, StepDetails, log_marks
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
) -> RunEnd:
    """Perform the plan and leave the capture folder ``options.out``; everything is undone when this returns.

    Ends early, undoing everything, on SIGTERM, SIGINT, SIGHUP, or when the descriptor ``stdin`` (usually stdin) comes
    to its end; nothing is read from it.  More signals change nothing.
    ``resident``: the trace instances of an agent that performs many plans; else they are made and removed.
    ``note_journal``: told where the changes to this host are noted, before the first is made.
    Never raises for what happens on the host, nor for a mistake of ours: what is returned, also in end.json, says it.

    :raise OSError: the capture folder cannot be written; what had been changed is undone.
    """
    capture = Capture(options.out, stream)
    capture.write_text("plan.json", to_json(plan))
    journal = Journal(options.journal or capture.path("journal.jsonl"))
    note_journal(os.path.abspath(journal.path))
    session = Session(plan, options, capture, journal, resident)
    log = KernelLog()
    begins, ends = log_marks(plan.nonce)
    cut = _Cut()
    end = GuestEnd(EndStatus.ERROR)
    try:
        with heard(cut.tell):
            try:
                with Caught() as caught:
                    log.mark(begins)
                    end = asyncio.run(_cancellable(session, stdin, cut))
                end = _joined(end, caught, capture)
            finally:
                with Caught() as caught:
                    capture.step(AgentStep.UNDO)
                problems = journal.undo_all()
            end = _joined(end, caught, capture)
            with Caught() as caught:
                log.mark(ends)
                capture.write_text("host/dmesg.txt", log.rest())
            end = _joined(end, caught, capture)
            reason = "; ".join(filter(None, (end.reason, *problems)))
            told = RunEnd(FORMAT, plan.nonce, end.status, reason, not problems)
            capture.write_json("end.json", told)
            capture.step(AgentStep.END, StepDetails(status=told.status, reason=reason, undone=told.undone))
            return told
    finally:
        log.close()
        capture.close()


@dataclass(slots=True)
class _Cut:
    """Whether the run is to end early, and why; the first reason counts, since a second cancellation would end the
    clean-up that the first has begun."""

    why: str = ""
    cancel: Callable[[], object] = lambda: None

    def tell(self, why: str) -> None:
        if not self.why:
            self.why = why
            self.cancel()


async def _cancellable(session: Session, stdin: int | None, cut: _Cut) -> GuestEnd:
    """The run as a task that ``cut`` or the end of ``stdin`` cancels.  :raise Exception: whatever the run raises."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(_run(session))
    cut.cancel = lambda: loop.call_soon_threadsafe(task.cancel)  # a signal comes in the middle of the loop's own work
    if cut.why:
        task.cancel()
    with select.epoll() as hung_up:
        if stdin is not None:
            _watch(loop, stdin, hung_up, lambda: cut.tell("the connection that started the agent was closed"))
        try:
            return await task
        except asyncio.CancelledError:
            return GuestEnd(EndStatus.ERROR, cut.why or "terminated")
        finally:
            cut.cancel = lambda: None
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


async def _run(session: Session) -> GuestEnd:
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


def _joined(end: GuestEnd, caught: Caught, capture: Capture) -> GuestEnd:
    """How the run ended, with what was caught since."""
    if caught.error is None:
        return end
    found = _classified(caught.error, capture)
    return GuestEnd(found.status, "; ".join(filter(None, (end.reason, found.reason))))


def _classified(error: Exception, capture: Capture) -> GuestEnd:
    """An error as the word for it.  Of one that nobody has foreseen the traceback is kept."""
    match error:
        case Unsupported():
            return GuestEnd(EndStatus.UNSUPPORTED, error.message)
        case PreconditionFailed():
            return GuestEnd(EndStatus.PRECONDITION, error.message)
        case QemuDied():
            return GuestEnd(EndStatus.QEMU_DIED, error.message)
        case ApfError():
            return GuestEnd(EndStatus.ERROR, str(error))
        case OSError():
            return GuestEnd(EndStatus.ERROR, in_words(error))
        case _:
            text = "".join(traceback.format_exception(error))
            with suppress(OSError, ValueError):
                sys.stderr.write(text)
            with suppress(OSError):
                capture.write_text(TRACEBACK, text)
            return GuestEnd(EndStatus.ERROR, f"{in_words(error)} (a mistake of the agent, see {TRACEBACK})")


def exit_code(end: RunEnd) -> int:
    """0: the capture says how it ended; 3: our or the machine's fault."""
    if end.status is EndStatus.ERROR:
        print(f"apf agent: {end.reason}", file=sys.stderr)
        return 3
    return 0
