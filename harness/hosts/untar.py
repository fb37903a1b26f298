# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpack the tar that a host sent.  A host under test may be broken, so its archive is not trusted with paths."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

from harness.errors import InfraFault

MOST_BYTES = 1 << 29
"""Of all files of an archive together: a sparse file is small on its way and may be of any size here."""
MOST_FILES = 10_000


def untar(data: bytes, target: Path) -> None:
    """Write the regular files and folders of a tar below ``target``; anything else in it is refused.

    :raise InfraFault: the archive is damaged, names a path outside, holds links or devices, or is too large.
    """
    target.mkdir(parents=True, exist_ok=True)
    files = size = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                files, size = files + 1, size + member.size
                if files > MOST_FILES or size > MOST_BYTES:
                    raise InfraFault(f"the host sent more than {MOST_FILES} files or {MOST_BYTES >> 20} MiB")
                parts = PurePosixPath(member.name).parts
                if member.name.startswith("/") or ".." in parts:
                    raise InfraFault(f"the host sent a path outside of its folder: {member.name!r}")
                path = target.joinpath(*parts)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                elif member.isreg():
                    stream = archive.extractfile(member)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(stream.read() if stream is not None else b"")
                else:
                    raise InfraFault(f"the host sent something that is no file: {member.name!r}")
    except tarfile.TarError as exc:
        raise InfraFault(f"the host sent a damaged archive: {exc}") from exc
