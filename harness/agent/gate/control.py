# SPDX-License-Identifier: GPL-2.0-or-later
"""A server from the agent's side: forked, told what to do, asked what it did."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.agent.gate.leave import SERVER_NAME
from harness.agent.host import syscalls
from harness.agent.host.bounded import reap
from harness.contract.capture import GateLog
from harness.contract.structure import structure
from harness.errors import InfraFault

_ANSWER_SECONDS = 120.0
"""Of a server that is alive: one that has died is noticed at once.  Emulated hosts on busy machines stand for 20 s."""
_END_SECONDS = 60.0


@dataclass(slots=True)
class Gate:
    """A server of pages.  Every method that asks it: :raise InfraFault: it does not answer."""

    pid: int
    _control: socket.socket
    _rest: bytes = b""
    _turn: threading.Lock = field(default_factory=threading.Lock)  # actions of the host may come at one time

    def arm(
        self, *, rule: str, order: str, tids: Sequence[int], pages: Mapping[int, int], errors: Sequence[int],
        after_s: float, ram_hva: int, apic_ids: Sequence[int], moved: bool, trace: str,
    ) -> None:  # fmt: skip
        """From now on reads end as the plan says (keeper.Orders); ``trace``: the trace_pipe to follow."""
        self.ask("arm", rule=rule, order=order, tids=list(tids), pages=dict(pages), errors=list(errors),
                 after_s=after_s, ram_hva=ram_hva, apic_ids=list(apic_ids), moved=moved, trace=trace)  # fmt: skip

    def open(self) -> None:
        """Let everything pass, now and later."""
        self.ask("open")

    def held(self) -> int:
        """How many reads it holds."""
        return int(self.ask("seen")["held"])

    def find(self, words: Sequence[int]) -> dict[int, int]:
        """Where on the device pages that begin with these 8 bytes were written to last, in bytes."""
        return dict(self.ask("find", words=list(words))["found"])

    def log(self) -> GateLog:
        """What became of each read so far."""
        return structure(GateLog, self.ask("log"))

    def close(self) -> None:
        """The server has ended, or ends when it sees this.

        :raise InfraFault: it does not.
        """
        self._control.close()
        if reap(self.pid, _END_SECONDS) is None:
            raise InfraFault(f"the gate's server {self.pid} did not end within {_END_SECONDS:g} s")

    def ask(self, do: str, **more: object) -> dict[str, Any]:
        """One word and its answer."""
        with self._turn:
            return self._ask(do, more)

    def _ask(self, do: str, more: Mapping[str, object]) -> dict[str, Any]:
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


def start_server(serve: Callable[[socket.socket], None], kept: Sequence[int] = ()) -> Gate:
    """Fork the server's process.

    :param serve: its whole life, with its end of the control socket; it has no other descriptors but those ``kept``.
    """
    control, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            syscalls.name_thread(SERVER_NAME)
            syscalls.io_flusher()
            _close_all_but({theirs.fileno(), *kept})
            serve(theirs)
        finally:
            os._exit(0)
    theirs.close()
    control.settimeout(_ANSWER_SECONDS)
    return Gate(pid, control)


def _close_all_but(kept: set[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    before = 2
    for number in sorted(kept):
        os.closerange(before + 1, number)
        before = number
    os.closerange(before + 1, os.sysconf("SC_OPEN_MAX"))
