# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's nbd client by generic netlink (drivers/block/nbd.c, include/uapi/linux/nbd-netlink.h; Linux 4.12).

By netlink rather than ioctl: no thread has to stay in the kernel, and anybody can disconnect a device by its number
without opening it, which a device whose reads are held would not let them do.  A disconnect ends all outstanding
reads with EIO, whether or not their server is alive.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
from collections.abc import Iterator

from harness.agent.host.kernel_files import read_text

_NETLINK_GENERIC, _GENL_ID_CTRL, _CTRL_CMD_GETFAMILY = 16, 0x10, 3
_CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 1, 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLMSG_ERROR, _NLA_F_NESTED = 1, 4, 2, 0x8000
_CMD_CONNECT, _CMD_DISCONNECT = 1, 2
_ATTR_INDEX, _ATTR_SIZE, _ATTR_BLOCK, _ATTR_SERVER_FLAGS, _ATTR_SOCKETS = 1, 2, 3, 5, 7
_SOCK_ITEM, _SOCK_FD = 1, 1
_HAS_FLAGS, _SEND_FLUSH = 1, 4
_MODPROBE_SECONDS = 30.0
_ANSWER_BYTES = 65536


def has_nbd() -> bool:
    """Whether the kernel has nbd devices (the module is loaded if there is one)."""
    if not os.path.exists("/sys/block/nbd0"):
        try:
            subprocess.run(["modprobe", "-q", "nbd"], check=False, timeout=_MODPROBE_SECONDS)
        except OSError:
            return False  # no modprobe: then it is built in, or it is not there
    return os.path.exists("/sys/block/nbd0")


def owner(index: int) -> int:
    """The process that connected the device, 0 when it is not connected (drivers/block/nbd.c:pid_show)."""
    try:
        return int(read_text(f"/sys/block/nbd{index}/pid"))
    except (OSError, ValueError):
        return 0


def indices() -> list[int]:
    """Numbers of the nbd devices that there are."""
    names = (name.removeprefix("nbd") for name in os.listdir("/sys/block") if name.startswith("nbd"))
    return sorted(int(n) for n in names if n.isdecimal())


def in_flight(index: int) -> int:
    """Requests that are not answered."""
    try:
        return sum(int(n) for n in read_text(f"/sys/block/nbd{index}/inflight").split())
    except OSError:
        return 0


def connect(index: int, sock: socket.socket, size: int, block: int = 4096) -> None:
    """Have the device read and write through ``sock`` (a stream socket, of any family); ``size`` in bytes.

    :raise OSError: EBUSY: it is connected already; ENOENT: no nbd in this kernel.
    """
    item = _attribute(_SOCK_ITEM | _NLA_F_NESTED, _attribute(_SOCK_FD, struct.pack("<I", sock.fileno())))
    _request(
        _CMD_CONNECT,
        _attribute(_ATTR_INDEX, struct.pack("<I", index))
        + _attribute(_ATTR_SIZE, struct.pack("<Q", size))
        + _attribute(_ATTR_BLOCK, struct.pack("<Q", block))
        + _attribute(_ATTR_SERVER_FLAGS, struct.pack("<Q", _HAS_FLAGS | _SEND_FLUSH))
        + _attribute(_ATTR_SOCKETS | _NLA_F_NESTED, item),
    )


def disconnect(index: int) -> None:
    """End the connection; outstanding reads end with EIO.  Not connected: nothing is done.

    :raise OSError: ENOENT: no nbd in this kernel.
    """
    try:
        _request(_CMD_DISCONNECT, _attribute(_ATTR_INDEX, struct.pack("<I", index)))
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # nbd_genl_disconnect: not in use
            raise


def _request(command: int, payload: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as netlink:
        netlink.bind((0, 0))
        answer = _call(netlink, _GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _attribute(_CTRL_ATTR_FAMILY_NAME, b"nbd\0"))
        family = struct.unpack("<H", dict(attributes(answer))[_CTRL_ATTR_FAMILY_ID])[0]
        _call(netlink, family, command, payload)


def _call(netlink: socket.socket, family: int, command: int, payload: bytes) -> bytes:
    """One request, to its acknowledgement; returns the attributes of the answer before that. :raise OSError:"""
    body = struct.pack("<BBH", command, 1, 0) + payload
    netlink.send(struct.pack("<IHHII", 16 + len(body), family, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0) + body)
    answer = b""
    while True:
        data = netlink.recv(_ANSWER_BYTES)
        while data:
            length, kind = struct.unpack_from("<IH", data)
            if kind == _NLMSG_ERROR:  # also an acknowledgement: error 0
                error = -int(struct.unpack_from("<i", data, 16)[0])
                if error:
                    raise OSError(error, os.strerror(error))
                return answer
            answer, data = data[20:length], data[_aligned(length) :]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each netlink attribute."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("<HH", data)
        if length < 4:
            return
        yield kind & ~_NLA_F_NESTED, data[4:length]
        data = data[_aligned(length) :]


def _attribute(kind: int, payload: bytes) -> bytes:
    length = len(payload) + 4
    return struct.pack("<HH", length, kind) + payload + bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
