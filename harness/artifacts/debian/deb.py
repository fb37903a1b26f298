# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpacking Debian packages without root and without running anything of theirs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from harness.artifacts.command import missing_tool
from harness.errors import BuildFailed


def extract(deb: Path, folder: Path, wanted: Callable[[str], bool] = lambda path: True) -> None:
    """Unpack the files of a package that ``wanted`` keeps (it is given paths like ``usr/bin/env``).

    The folder gets a merged /usr as Debian 12 has it, modes without set-id bits, and the caller's ownership: no root is
    needed, and package scripts are not run.

    :raise BuildFailed: the package is damaged.
    """
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"usr/{name}")
    try:
        process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
    except FileNotFoundError as error:
        raise missing_tool("dpkg-deb") from error
    with process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                _unpack(archive, folder, wanted)
        except tarfile.TarError as error:
            raise BuildFailed(f"{deb}: cannot be unpacked: {error}") from error
    if process.returncode != 0:
        raise BuildFailed(f"{deb}: dpkg-deb ended with status {process.returncode}")


def _unpack(archive: tarfile.TarFile, folder: Path, wanted: Callable[[str], bool]) -> None:
    for member in archive:
        name = _merged(member.name)
        if name in ("", ".") or not wanted(name):
            continue
        path = folder / name
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if member.issym():
            path.symlink_to(member.linkname)
        elif member.islnk():
            os.link(folder / _merged(member.linkname), path)
        elif member.isfile():
            source = archive.extractfile(member)
            assert source is not None
            with path.open("wb") as file:
                shutil.copyfileobj(source, file)
            path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _merged(name: str) -> str:
    """A package's path in a system with merged /usr."""
    name = name.removeprefix("./").rstrip("/")
    return re.sub(r"^(bin|sbin|lib|lib32|lib64|libx32)(?=/|$)", r"usr/\1", name)
