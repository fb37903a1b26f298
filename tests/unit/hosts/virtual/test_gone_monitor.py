# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor of a virtual host whose QEMU was killed: it is asked for the host's registers when a host is lost."""

from __future__ import annotations

import contextlib
import gc
import socket
from typing import cast

import pytest

from harness.errors import HostLost
from harness.hosts.virtual.virtual_host import monitor
from harness.hosts.virtual.vm import QemuProcess


class GoneQemu:
    """Its end of the socket is closed; nobody has found out yet that it is dead."""

    def __init__(self) -> None:
        self.qmp, theirs = socket.socketpair()
        theirs.close()

    def check(self) -> None: ...


@pytest.mark.parametrize("greeted", [False, True])
def test_it_is_told_once(greeted: bool, caplog: pytest.LogCaptureFixture) -> None:
    gone = GoneQemu()
    with contextlib.closing(gone.qmp), pytest.raises(HostLost, match="QMP of the virtual host"):
        monitor(cast(QemuProcess, gone), "info registers -a", greeted=greeted)
    gc.collect()  # what asyncio says of a task is said when that is forgotten
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
