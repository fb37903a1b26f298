# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports for servers that can be told a number only."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """A port of loopback that is given to nobody else until the context ends, as one would be that is free again when
    the server binds it.  The server may: both say SO_REUSEADDR, and this one does not listen
    (net/ipv4/inet_connection_sock.c:inet_bind_conflict)."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
