# SPDX-License-Identifier: GPL-2.0-or-later
"""Missing pages of a running QEMU as a gated source: registered with a userfaultfd of its own, kept by a server."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress

from harness.agent.gate.control import Gate, start_server
from harness.agent.gate.missing import Missing
from harness.agent.gate.server import Server
from harness.agent.host import userfault
from harness.agent.host.undo import Journal
from harness.agent.pages.remote_call import call_apart
from harness.errors import InfraFault


def open_faults(journal: Journal, pid: int, ram_hva: int, size: int, content: Callable[[int], bytes | None]) -> Gate:
    """The pages of ``pid`` from ``ram_hva`` on that are not there come from a server; it lets them pass at first.

    The descriptor is made inside the process (userfaultfd(2) is for the caller's own memory), copied out and closed
    there: then the server alone holds it.  Undone by the journal's kind "userfaultfd".

    :param size: of the range, in bytes.
    :param content: of the page at a guest physical address; None: nobody planned it, zeroes.
    :raise InfraFault: the process could not be made to, or the range cannot be registered.
    """
    fd = _descriptor(pid)
    try:
        userfault.register_missing(fd, ram_hva, size)  # a descriptor that is not set up cannot be polled
        gate = start_server(lambda control: _serve(fd, control, ram_hva, size, content), (fd,))
        journal.change("userfaultfd", pid=gate.pid)
    except OSError as exc:
        raise InfraFault(f"UFFDIO_REGISTER of {size} bytes at {ram_hva:#x} in process {pid}: {exc}") from exc
    finally:
        os.close(fd)
    return gate


def _descriptor(pid: int) -> int:
    theirs = call_apart(pid, userfault.SYS_USERFAULTFD, userfault.FLAGS)
    if theirs < 0:
        raise InfraFault(f"userfaultfd in process {pid}: {os.strerror(-theirs)}")
    try:
        return userfault.take_descriptor(pid, theirs)
    except OSError as exc:
        raise InfraFault(f"the userfaultfd of process {pid}: {exc}") from exc
    finally:
        with suppress(InfraFault):
            call_apart(pid, userfault.SYS_CLOSE, theirs)


def _serve(fd: int, control: socket.socket, ram_hva: int, size: int, content: Callable[[int], bytes | None]) -> None:
    """The server's whole life."""
    Server(Missing(fd, ram_hva, size, content), control).run()
