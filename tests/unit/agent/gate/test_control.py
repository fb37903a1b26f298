# SPDX-License-Identifier: GPL-2.0-or-later
"""A server seen from its agent: real processes."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from harness.agent.gate import control
from harness.agent.gate.control import start_server
from harness.errors import InfraFault
from tests.unit.agent.conftest import root_only

pytestmark = root_only


def test_a_server_that_ends_is_reaped() -> None:
    gate = start_server(lambda agent: agent.recv(1) and None)
    gate.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(gate.pid, 0)


def test_a_server_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that sleeps in the kernel, on what the disk below it does not answer."""
    monkeypatch.setattr(control, "_END_SECONDS", 0.2)
    gate = start_server(lambda _agent: threading.Event().wait() and None)
    try:
        with pytest.raises(InfraFault, match=rf"the gate's server {gate.pid} did not end within 0\.2 s"):
            gate.close()
    finally:
        os.kill(gate.pid, signal.SIGKILL)
        os.waitpid(gate.pid, 0)
