# SPDX-License-Identifier: GPL-2.0-or-later
"""One agent for many plans: what Python has to load on an emulated host is loaded once.

A line of standard input is a PlanRequest (harness/contract/service.py).  Its progress goes to standard output, then a
PlanServed.  Two processes: one performs the plans, the other passes the requests on and looks after it.  Each is there
for the case that the other is killed: when the requests end, or SIGTERM comes, the performing one undoes everything, as
it does under ``perform``; when that one dies, the other takes back what its journals list.

Not a process for each plan: after a fork every page that Python touches is copied, and an emulated machine spends
0.3 s on these page faults.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from harness.agent import by_sudo
from harness.agent.capture_folder import stdout_stream
from harness.agent.ending_signals import heard, unheeded
from harness.agent.host.cgroup import enter
from harness.agent.host.kernel_files import write_text
from harness.agent.host.resident import Resident, clean_up, hold_vm
from harness.agent.perform import exit_code, perform
from harness.contract.plan import from_json
from harness.contract.service import AgentServing, PlanRequest, PlanServed, line_of
from harness.errors import UsageError

_CHUNK = 1 << 16
_FIRST_TO_GO = "1000"  # if the machine runs out of memory, it is we who are killed


def serve(source: int = 0, scope: str = "", folder: str = "") -> int:
    """Serve requests from the descriptor ``source`` until it ends; the exit code (0).

    3: the process that performs the plans was killed; what it had changed is taken back.

    :param scope: cgroup of the run, in which everything stays that is started here; empty: none.
    :param folder: of the run; those who come by sudo must have one.
    :raise OSError: the scope cannot be entered.
    :raise UsageError: who comes by sudo names another scope, or no folder of a run.
    """
    uid = by_sudo.caller()
    if uid is not None:
        by_sudo.check_place(scope, folder)
    if scope:
        enter(scope, os.getpid())
        write_text("/proc/self/oom_score_adj", _FIRST_TO_GO)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(theirs)
        _child(ours, folder, uid)
    os.close(ours)
    with _told_to_end() as told:
        hold_vm()
        _say(AgentServing(os.getpid()))
        _pass_on(source, theirs, pid, told)
        os.close(theirs)
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            return 0
        for problem in clean_up():
            print(f"apf agent: {problem}", file=sys.stderr)
        return 3


def _pass_on(source: int, target: int, pid: int, told: int) -> None:
    """Requests to the performing process, until they end, ``told`` can be read, or it has died."""
    child = os.pidfd_open(pid)
    try:
        while True:
            ready, _, _ = select.select([child, source, told], [], [])
            if child in ready or told in ready:
                return
            chunk = os.read(source, _CHUNK)
            if not chunk:
                return
            with contextlib.suppress(BrokenPipeError):
                os.write(target, chunk)
    finally:
        os.close(child)


@contextmanager
def _told_to_end() -> Iterator[int]:
    """A descriptor that can be read once a signal has told us to end; more of them change nothing."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)

    def on_signal(_why: str) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(tell, b"t")

    try:
        with heard(on_signal):
            yield told
    finally:
        os.close(told)
        os.close(tell)


def _child(source: int, folder: str, uid: int | None) -> None:
    """The performing process's whole life; never returns."""
    code = 3
    try:
        # What a plan starts must not read our requests, and a signal to the group is the other's to pass on.
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.setpgid(0, 0)
        with heard(unheeded):
            code = _serve(source, folder, uid)
    except BaseException as exc:  # noqa: BLE001 - a child must not go on as its parent's copy
        with contextlib.suppress(Exception):
            print(f"apf agent: {type(exc).__name__}: {exc}", file=sys.stderr)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _serve(source: int, folder: str, uid: int | None) -> int:
    pending = bytearray()
    with Resident() as resident:
        while True:
            line, found, rest = bytes(pending).partition(b"\n")
            if found:
                pending[:] = rest
                _say(_answer(line, source, resident, folder, uid))
                continue
            chunk = os.read(source, _CHUNK)
            if not chunk:
                return 0
            pending += chunk


def _answer(line: bytes, source: int, resident: Resident, folder: str, uid: int | None) -> PlanServed:
    """Perform one request; its plan is cut short when ``source`` ends meanwhile."""
    try:
        request = from_json(PlanRequest, line)
        if uid is not None:
            request = replace(request, options=by_sudo.allowed(request.plan, request.options, folder, uid))
    except (UsageError, OSError) as exc:
        return PlanServed(2, f"apf agent: not a request: {exc}")
    code, undone = 3, False
    with _errors() as said:
        try:
            instances = resident.instances() if request.options.accel == "kvm" else None
            end = perform(
                request.plan, request.options, stream=stdout_stream(), stdin=source, resident=instances,
                note_journal=resident.note_journal,
            )  # fmt: skip
            code, undone = exit_code(end), end.undone
            if uid is not None:
                by_sudo.hand_over(request.options.out)
        except Exception as exc:  # noqa: BLE001 - a fault of ours, told to the host, which is not used any more
            print(f"apf agent: {type(exc).__name__}: {exc}", file=sys.stderr)
    return PlanServed(code, said[0], undone)


@contextmanager
def _errors() -> Iterator[list[str]]:
    """What is written to standard error meanwhile, by whatever process, is the list's only element afterwards."""
    said = [""]
    with tempfile.TemporaryFile() as errors:
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(errors.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            errors.seek(0)
            said[0] = errors.read().decode(errors="replace")


def _say(message: AgentServing | PlanServed) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(line_of(message) + "\n")
        sys.stdout.flush()
