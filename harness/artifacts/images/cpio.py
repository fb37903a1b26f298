# SPDX-License-Identifier: GPL-2.0-or-later
"""Initial RAM file systems: the "newc" cpio format (Documentation/driver-api/early-userspace/buffer-format.rst).

Entries are sorted, owned by root and as old as the epoch, so equal contents give equal bytes.
"""

from __future__ import annotations

import builtins
import gzip
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

_ALIGN = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One file system object; ``data`` is a file's contents or a link's target."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Cpio:
    """An archive in the making; parents of an entry come by themselves, as folders of mode 0755."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._put(path, Entry(stat.S_IFDIR | mode))

    def file(self, path: str, data: bytes | Path, mode: int = 0o644) -> None:
        contents = data.read_bytes() if isinstance(data, Path) else data
        self._put(path, Entry(stat.S_IFREG | mode, contents))

    def link(self, path: str, target: str) -> None:
        self._put(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._put(path, Entry(stat.S_IFCHR | mode, device=(major, minor)))

    def _put(self, path: str, entry: Entry) -> None:
        pure = PurePosixPath(path.strip("/"))
        if not pure.parts or ".." in pure.parts:
            raise ValueError(f"not a path inside an archive: {path!r}")
        for parent in pure.parents:
            if parent.parts:
                self.entries.setdefault(str(parent), Entry(stat.S_IFDIR | 0o755))
        self.entries[str(pure)] = entry

    def bytes(self) -> bytes:
        """The archive, padded to 512 bytes so that another may follow."""
        out = bytearray()
        for number, (name, entry) in enumerate(sorted(self.entries.items()), start=1):
            out += _record(number, name, entry)
        out += _record(0, "TRAILER!!!", Entry(0))
        return bytes(out + b"\0" * (-len(out) % 512))

    def compressed(self) -> builtins.bytes:
        """The archive, lightly compressed: the kernel unpacks under emulation, the disk is fast.  Such ones can follow
        each other."""
        return gzip.compress(self.bytes(), compresslevel=1, mtime=0)

    def write(self, path: Path) -> None:
        """Write the archive, compressed."""
        path.write_bytes(self.compressed())


def _record(number: int, name: str, entry: Entry) -> bytes:
    raw_name = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(raw_name), 0)
    head = b"070701" + b"".join(b"%08x" % value for value in fields) + raw_name
    head += b"\0" * (-len(head) % _ALIGN)
    return head + entry.data + b"\0" * (-len(entry.data) % _ALIGN)
