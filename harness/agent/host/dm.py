# SPDX-License-Identifier: GPL-2.0-or-later
"""dm-delay devices by the ioctls of device-mapper (drivers/md/dm-ioctl.c): starting dmsetup(8) a dozen times for one
plan takes a second on an emulated host.

Table: ``0 <sectors> delay <device> 0 <read ms> <device> 0 0``: reads delayed, writes not.
What holds and releases reads (drivers/md/dm-delay.c:delay_presuspend, 5.10 to 6.12): loading another table suspends the
device, and that submits every bio held so far, at once.  So "freeze" is a table with a delay of an hour, and "thaw"
the table with the old delay: reads that were held go out when it is loaded.  A mere suspend would not do: it releases
what is held, and fails read-ahead bios of file systems with EIO (drivers/md/dm.c:dm_submit_bio, REQ_RAHEAD).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import threading

from harness.agent.host.kernel_files import read_text, write_text
from harness.errors import InfraFault, Unsupported

FROZEN_MS = 3_600_000
READ_AHEAD = ("read_ahead_kb", "128")
"""File read-ahead is predicted for 32 pages.  6.12 has 256 for nbd, and from 6.17 on a rotational device has twice its
max_sectors; each write of a limit of the queue, and each table, makes it that again (block/blk-settings.c:
blk_apply_bdi_limits, called by queue_limits_commit_update), so it comes last."""
_MODPROBE_SECONDS = 30.0
_CONTROL = "/dev/mapper/control"
# struct dm_ioctl, struct dm_target_spec, struct dm_target_versions (include/uapi/linux/dm-ioctl.h)
_IOCTL = struct.Struct("<3IIIIiIIIQ128s129s7x")
_TARGET = struct.Struct("<QQiI16s")
_VERSIONS = struct.Struct("<I3I")
_DEV_CREATE, _DEV_REMOVE, _DEV_SUSPEND, _TABLE_LOAD, _LIST_VERSIONS = 3, 4, 6, 9, 13
_SKIP_LOCKFS = 1 << 10
_TABLES = threading.Lock()
"""From a new table to its resume: of two threads that resume at once one finds that the other has taken its table, and
has resumed the device already (drivers/md/dm.c:dm_resume, EINVAL)."""
_ROOM, _LIST_ROOM = 1024 - _IOCTL.size, 16384


def delay_parameters(device: str, read_ms: int) -> str:
    """The parameters of a dm-delay target over the whole of ``device``: reads, then writes."""
    return f"{device} 0 {read_ms} {device} 0 0"


def device_of(name: str) -> str:
    """The kernel name (``dm-0``) of a device-mapper device, "" if there is none of this name."""
    for entry in sorted(os.listdir("/sys/block")):
        if entry.startswith("dm-") and read_text(f"/sys/block/{entry}/dm/name").strip() == name:
            return entry
    return ""


def exists(name: str) -> bool:
    return device_of(name) != ""


def create(name: str, device: str, sectors: int, read_ms: int) -> str:
    """Make the device over ``sectors`` of 512 bytes; returns its path /dev/dm-N.

    :raise Unsupported: no device-mapper on this host. :raise InfraFault: the kernel refused.
    """
    _ioctl(_DEV_CREATE, name)
    set_delay(name, device, sectors, read_ms)
    return f"/dev/{device_of(name)}"


def set_delay(name: str, device: str, sectors: int, read_ms: int) -> None:
    """Load another read delay; every read that is held goes out now.

    :raise InfraFault: the kernel refused that, or the queue's read_ahead_kb.
    """
    parameters = delay_parameters(device, read_ms).encode() + b"\0"
    with _TABLES:
        _ioctl(_TABLE_LOAD, name, _TARGET.pack(0, sectors, 0, 0, b"delay") + parameters)
        # Resuming a device that has a new table suspends it, swaps the tables and resumes it, in one ioctl.
        # No lockfs: freezing a mounted file system would wait for its dirty pages.
        _ioctl(_DEV_SUSPEND, name, flags=_SKIP_LOCKFS)
    attribute, value = READ_AHEAD
    try:
        write_text(f"/sys/block/{device_of(name)}/queue/{attribute}", value)
    except OSError as error:
        raise InfraFault(f"{attribute} of {name} cannot be set to {value}: {error.strerror}") from error


def remove(name: str) -> None:
    """:raise InfraFault: still open."""
    _ioctl(_DEV_REMOVE, name)


def has_delay() -> bool:
    """Whether device-mapper offers the delay target (asked of the kernel, module loaded if there is one)."""
    if "delay" in targets():
        return True
    try:
        subprocess.run(["modprobe", "-q", "dm-delay"], check=False, timeout=_MODPROBE_SECONDS)
    except OSError:
        return False  # no modprobe: then it is built in, or it is not there
    return "delay" in targets()


def targets() -> tuple[str, ...]:
    """Names of the targets that device-mapper has; none without device-mapper."""
    try:
        data = _ioctl(_LIST_VERSIONS, "")
    except (Unsupported, InfraFault):
        return ()
    found, offset = [], 0
    while True:
        step = _VERSIONS.unpack_from(data, offset)[0]
        found.append(data[offset + _VERSIONS.size :].partition(b"\0")[0].decode())
        if not step:
            return tuple(found)
        offset += step


def _ioctl(number: int, name: str, payload: bytes = b"", flags: int = 0) -> bytes:
    """One command; returns what the kernel wrote behind the header."""
    # Python lets go of its lock during ioctl(2) for up to 1024 bytes only, and a resume waits for the disk.
    size, room = _IOCTL.size, _LIST_ROOM if number == _LIST_VERSIONS else _ROOM
    header = (4, 0, 0, size + room, size, 1 if payload else 0, 0, flags, 0, 0, 0, name.encode(), b"")
    buffer = bytearray(_IOCTL.pack(*header) + payload.ljust(room, b"\0"))
    try:
        fd = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise Unsupported(f"the host's kernel has no device-mapper: {exc}") from None
    try:
        fcntl.ioctl(fd, 0xC000FD00 | size << 16 | number, buffer)
    except OSError as exc:
        raise InfraFault(
            f"device-mapper command {number} of {name}: {errno.errorcode.get(exc.errno or 0, exc)}"
        ) from exc
    finally:
        os.close(fd)
    return bytes(buffer[_IOCTL.unpack_from(buffer)[4] :])
