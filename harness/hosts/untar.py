# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpack the tar that a host sent.  A host under test may be broken, so its archive is not trusted with paths."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

from harness.errors import InfraFault


def untar(data: bytes, target: Path) -> None:
    """Write the regular files and folders of a tar below ``target``; anything else in it is refused.

    :raise InfraFault: the archive is damaged, names a path outside, or holds links or devices.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
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
