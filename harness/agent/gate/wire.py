# SPDX-License-Identifier: GPL-2.0-or-later
"""The nbd protocol as the kernel's client speaks it (include/uapi/linux/nbd.h), bytes to values and back."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

_REQUEST = struct.Struct(">IIQQI")
_REPLY = struct.Struct(">IIQ")
_REQUEST_MAGIC, _REPLY_MAGIC = 0x25609513, 0x67446698
_COMMAND_MASK = 0xFFFF  # above: NBD_CMD_FLAG_*
REQUEST_BYTES = _REQUEST.size


class Command(IntEnum):
    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``offset`` and ``length`` in bytes."""

    command: Command
    handle: int
    offset: int
    length: int


def decode_request(data: bytes) -> Request:
    """:raise ValueError: not a request: the stream is out of step."""
    magic, command, handle, offset, length = _REQUEST.unpack(data)
    if magic != _REQUEST_MAGIC:
        raise ValueError(f"not an nbd request: magic {magic:#x}")
    return Request(Command(command & _COMMAND_MASK), handle, offset, length)


def encode_reply(handle: int, error: int = 0) -> bytes:
    """The head of an answer; the data of a read that succeeded follow it."""
    return _REPLY.pack(_REPLY_MAGIC, error, handle)
