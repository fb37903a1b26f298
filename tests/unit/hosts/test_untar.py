# SPDX-License-Identifier: GPL-2.0-or-later
"""A host under test may send anything."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from harness.errors import InfraFault
from harness.hosts.untar import untar
from tests.unit.waiting import HANG_S


def archive(*members: tuple[str, bytes, bytes]) -> bytes:
    """A tar of (name, type, content)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = "/etc/passwd"
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_files_and_folders(tmp_path: Path) -> None:
    data = archive(
        ("./", tarfile.DIRTYPE, b""), ("./end.json", tarfile.REGTYPE, b"{}"), ("./trace/a.txt", tarfile.REGTYPE, b"x")
    )
    untar(data, tmp_path / "new")
    assert (tmp_path / "new/end.json").read_bytes() == b"{}"
    assert (tmp_path / "new/trace/a.txt").read_bytes() == b"x"


@pytest.mark.parametrize(
    "member",
    [
        ("/etc/cron.d/x", tarfile.REGTYPE, b"x"),
        ("../x", tarfile.REGTYPE, b"x"),
        ("./a/../../x", tarfile.REGTYPE, b"x"),
        ("link", tarfile.SYMTYPE, b""),
        ("hard", tarfile.LNKTYPE, b""),
        ("dev", tarfile.CHRTYPE, b""),
    ],
)
def test_refused(tmp_path: Path, member: tuple[str, bytes, bytes]) -> None:
    with pytest.raises(InfraFault):
        untar(archive(member), tmp_path / "new")
    assert not (tmp_path / "x").exists()


def test_damaged(tmp_path: Path) -> None:
    with pytest.raises(InfraFault):
        untar(archive(("a", tarfile.REGTYPE, b"x" * 5000))[:3000], tmp_path)


def test_a_sparse_file_that_would_fill_the_disk_is_refused_before_it_is_written(tmp_path: Path) -> None:
    """4 GiB of holes are a few hundred bytes of an archive, which Python unpacks as zeroes."""
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 4 << 30)
    data = subprocess.run(
        ["tar", "-C", tmp_path, "--sparse", "-cf", "-", "holes"], capture_output=True, check=True, timeout=HANG_S
    ).stdout
    assert len(data) < 1 << 16
    with pytest.raises(InfraFault, match="more than"):
        untar(data, tmp_path / "new")
    assert not (tmp_path / "new/holes").exists()


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    data = archive(*((f"d{n}", tarfile.DIRTYPE, b"") for n in range(10_001)))
    with pytest.raises(InfraFault, match="more than 10000 files"):
        untar(data, tmp_path / "new")
