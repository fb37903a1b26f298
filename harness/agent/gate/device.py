# SPDX-License-Identifier: GPL-2.0-or-later
"""The gated device: its server is started, connected, and disconnected."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from dataclasses import dataclass

from harness.agent.gate.control import Gate, start_server
from harness.agent.gate.disk import Disk
from harness.agent.gate.server import Server
from harness.agent.host import nbd
from harness.agent.host.undo import Journal
from harness.errors import Unsupported


@dataclass(slots=True)
class GatedDisk:
    """A connected device and its server."""

    index: int
    gate: Gate

    @property
    def path(self) -> str:
        return f"/dev/nbd{self.index}"


def open_gate(journal: Journal, size: int) -> GatedDisk:
    """A device of ``size`` bytes, connected, which lets reads pass.  Undone by the journal's kind "nbd".

    :raise Unsupported: no nbd in this kernel, or no device is free. :raise InfraFault: the server did not start.
    """
    if not nbd.has_nbd():
        raise Unsupported("the host's kernel has no nbd")
    for index in nbd.indices():
        if nbd.owner(index):
            continue
        # mypy infers no type for a lambda with a default, which keeps this turn's index.
        gate = start_server(lambda control, index=index: _serve(index, control, size))  # type: ignore[misc]
        # The server connects only when this is noted.
        journal.change("nbd", index=index, pid=gate.pid)
        disk = GatedDisk(index, gate)
        problem = int(gate.ask("connect")["errno"])
        if not problem:
            # The first open reads the partition table: while reads still pass.
            os.close(os.open(disk.path, os.O_RDONLY))
            return disk
        gate.close()
        if problem != errno.EBUSY:
            raise Unsupported(f"nbd{index}: {os.strerror(problem)}")
    raise Unsupported("no nbd device is free on this host")


def _serve(index: int, control: socket.socket, size: int) -> None:
    """The server's whole life."""
    if not control.recv(1 << 16):  # "connect"; at its end the agent was killed before it had noted us
        return
    requests, client = socket.socketpair()
    problem = 0
    try:
        nbd.connect(index, client, size)
    except OSError as exc:
        problem = exc.errno or errno.EIO
    client.close()
    with contextlib.suppress(OSError):  # the agent is gone; the server sees that by itself, and lets everything pass
        control.sendall(json.dumps({"errno": problem}).encode() + b"\n")
    if not problem:
        Server(Disk(requests, size), control).run()
