# SPDX-License-Identifier: GPL-2.0-or-later
"""The gated device from the agent's side: the server is started, connected, told what to do, and disconnected."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.agent.gate.leave import SERVER_NAME
from harness.agent.gate.server import Server
from harness.agent.host import nbd, syscalls
from harness.agent.host.undo import Journal
from harness.errors import InfraFault, Unsupported

_ANSWER_SECONDS = 20.0


@dataclass(slots=True)
class Gate:
    """A connected device.  Every method that asks the server: :raise InfraFault: it does not answer."""

    index: int
    pid: int  # of the server
    _control: socket.socket
    _rest: bytes = b""

    @property
    def path(self) -> str:
        return f"/dev/nbd{self.index}"

    def arm(
        self, *, rule: str, order: str, tids: Sequence[int], pages: Mapping[int, int], errors: Sequence[int],
        after_s: float, ram_hva: int, trace: str,
    ) -> None:  # fmt: skip
        """From now on reads end as the plan says (keeper.Orders); ``trace``: the trace_pipe to follow."""
        self.ask("arm", rule=rule, order=order, tids=list(tids), pages=dict(pages), errors=list(errors),
                 after_s=after_s, ram_hva=ram_hva, trace=trace)  # fmt: skip

    def open(self) -> None:
        """Let every read pass, now and later."""
        self.ask("open")

    def log(self) -> dict[str, Any]:
        """harness.contract.gate.GateLog, as JSON values."""
        return self.ask("log")

    def ask(self, do: str, **more: object) -> dict[str, Any]:
        """One word and its answer."""
        try:
            self._control.sendall(json.dumps({"do": do, **more}).encode() + b"\n")
            while b"\n" not in self._rest:
                chunk = self._control.recv(1 << 16)
                if not chunk:
                    raise InfraFault("the gate's server has ended")
                self._rest += chunk
        except OSError as exc:
            raise InfraFault(f"the gate's server does not answer {do!r}: {exc}") from exc
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InfraFault(f"the gate's server: {answer['error']}")
        return answer


def open_gate(journal: Journal, size: int) -> Gate:
    """A device of ``size`` bytes, connected, which lets reads pass.  Undone by the journal's kind "nbd".

    :raise Unsupported: no nbd in this kernel, or no device is free. :raise InfraFault: the server did not start.
    """
    if not nbd.has_nbd():
        raise Unsupported("the host's kernel has no nbd")
    for index in nbd.indices():
        if nbd.owner(index):
            continue
        control, theirs = socket.socketpair()
        pid = _fork(index, theirs, size)
        theirs.close()
        control.settimeout(_ANSWER_SECONDS)
        # The server connects only when this is noted.
        journal.change("nbd", index=index, pid=pid)
        gate = Gate(index, pid, control)
        problem = int(gate.ask("connect")["errno"])
        if not problem:
            # The first open reads the partition table: while reads still pass.
            os.close(os.open(gate.path, os.O_RDONLY))
            return gate
        control.close()
        os.waitpid(pid, 0)
        if problem != errno.EBUSY:
            raise Unsupported(f"nbd{index}: {os.strerror(problem)}")
    raise Unsupported("no nbd device is free on this host")


def _fork(index: int, control: socket.socket, size: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            _serve(index, control, size)
        finally:
            os._exit(0)
    return pid


def _serve(index: int, control: socket.socket, size: int) -> None:
    """The server's whole life."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    syscalls.name_thread(SERVER_NAME)
    syscalls.io_flusher()
    _close_all_but(control.fileno())
    requests, client = socket.socketpair()
    control.recv(1 << 16)  # "connect"
    problem = 0
    try:
        nbd.connect(index, client, size)
    except OSError as exc:
        problem = exc.errno or errno.EIO
    client.close()
    control.sendall(json.dumps({"errno": problem}).encode() + b"\n")
    if not problem:
        Server(requests, control, size).run()


def _close_all_but(kept: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
