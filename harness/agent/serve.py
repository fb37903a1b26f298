# SPDX-License-Identifier: GPL-2.0-or-later
"""One agent for many plans: what Python has to load on an emulated host is loaded once.

A line of standard input is a PlanRequest (harness/contract/service.py).  A child process performs it; its progress
goes to standard output, then a PlanServed.
When standard input ends or SIGTERM comes, the child undoes everything, as it does under ``perform``, and then we end.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import tempfile
from collections.abc import Callable

from harness.agent.capture_folder import stdout_stream
from harness.agent.host.resident import Instances, Resident
from harness.agent.perform import exit_code, perform
from harness.contract.plan import Plan, from_json
from harness.contract.service import AgentOptions, AgentServing, PlanRequest, PlanServed, line_of
from harness.errors import UsageError

_CHUNK = 1 << 16


def serve(source: int = 0) -> int:
    """Serve requests from the descriptor ``source`` until it ends; the exit code (0)."""
    _say(AgentServing(os.getpid()))
    with Resident() as resident:
        return _serve(source, resident)


def _serve(source: int, resident: Resident) -> int:
    pending = bytearray()
    open_ = True
    while True:
        line, found, rest = bytes(pending).partition(b"\n")
        if found:
            pending[:] = rest
            open_ = _answer(line, source, pending, resident) and open_
            continue
        if not open_:
            return 0
        chunk = os.read(source, _CHUNK)
        open_ = bool(chunk)
        pending += chunk


def _answer(line: bytes, source: int, pending: bytearray, resident: Resident) -> bool:
    """Perform one request; False when ``source`` ended meanwhile."""
    try:
        request = from_json(PlanRequest, line)
    except UsageError as exc:
        _say(PlanServed(2, f"apf agent: not a request: {exc.message}"))
        return True
    plan, options = request.plan, request.options
    instances = resident.instances() if options.accel == "kvm" else None
    with tempfile.TemporaryFile() as errors:
        stop_read, stop_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(stop_write)
            _child(lambda: _perform(plan, options, stop_read, instances), errors.fileno())
        os.close(stop_read)
        alive = _wait(pid, stop_write, source, pending)
        _, status = os.waitpid(pid, 0)
        if alive:
            os.close(stop_write)
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    _say(PlanServed(os.waitstatus_to_exitcode(status), said))
    return alive


def _wait(pid: int, stop_write: int, source: int, pending: bytearray) -> bool:
    """Until the child has ended; when ``source`` ends or SIGTERM comes, it is told to stop.  False: it was."""
    child, (heard, told) = os.pidfd_open(pid), os.pipe()
    before = signal.signal(signal.SIGTERM, lambda *_: os.write(told, b"t"))
    watched = [child, source, heard]
    try:
        while True:
            ready, _, _ = select.select(watched, [], [])
            chunk = os.read(source, _CHUNK) if source in ready else b""
            if heard in ready or (source in ready and not chunk):
                os.close(stop_write)
                return False
            pending += chunk
            if child in ready:
                return True
    finally:
        signal.signal(signal.SIGTERM, before)
        for fd in (child, heard, told):
            os.close(fd)


def _perform(plan: Plan, options: AgentOptions, stop_read: int, resident: Instances | None) -> int:
    with os.fdopen(stop_read, "rb", buffering=0) as stream:
        return exit_code(perform(plan, options, stream=stdout_stream(), stdin=stream, resident=resident))


def _child(work: Callable[[], int], errors: int) -> None:
    """The child's whole life; never returns."""
    code = 3
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # What the plan starts must not read our requests.
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(errors, 2)
        code = work()
    except BaseException as exc:  # noqa: BLE001 - a child must not go on as its parent's copy
        with contextlib.suppress(Exception):
            print(f"apf agent: {type(exc).__name__}: {exc}", file=sys.stderr)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _say(message: AgentServing | PlanServed) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(line_of(message) + "\n")
        sys.stdout.flush()
