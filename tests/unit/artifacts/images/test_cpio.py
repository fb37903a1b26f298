# SPDX-License-Identifier: GPL-2.0-or-later
"""The cpio writer, read back by another implementation."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from harness.artifacts.images.cpio import Cpio


def _example() -> Cpio:
    cpio = Cpio()
    cpio.file("bin/tool", b"#!/bin/sh\n", 0o755)
    cpio.file("etc/odd", b"123")
    cpio.link("bin/sh", "tool")
    cpio.character_device("dev/console", 5, 1)
    cpio.folder("secret", 0o700)
    return cpio


@pytest.mark.skipif(shutil.which("busybox") is None and shutil.which("cpio") is None, reason="no cpio to read it with")
def test_another_cpio_reads_it(tmp_path: Path) -> None:
    reader = ["cpio"] if shutil.which("cpio") else ["busybox", "cpio"]
    listed = subprocess.run([*reader, "-tv"], input=_example().bytes(), capture_output=True, check=True).stdout.decode()
    rows = [line.split() for line in listed.splitlines()]
    modes = {row[row.index("->") - 1] if "->" in row else row[-1]: row[0] for row in rows}
    assert modes == {
        "bin": "drwxr-xr-x",
        "bin/sh": "lrwxrwxrwx",
        "bin/tool": "-rwxr-xr-x",
        "dev": "drwxr-xr-x",
        "dev/console": "crw-------",
        "etc": "drwxr-xr-x",
        "etc/odd": "-rw-r--r--",
        "secret": "drwx------",
    }
    subprocess.run(
        [*reader, "-idm", "etc/odd"], input=_example().bytes(), cwd=tmp_path, check=True, capture_output=True
    )
    assert (tmp_path / "etc/odd").read_bytes() == b"123"


def test_order_and_clock_do_not_matter(tmp_path: Path) -> None:
    other = Cpio()
    other.folder("secret", 0o700)
    other.character_device("dev/console", 5, 1)
    other.link("bin/sh", "tool")
    other.file("etc/odd", b"123")
    other.file("bin/tool", b"#!/bin/sh\n", 0o755)
    assert other.bytes() == _example().bytes()
    _example().write(tmp_path / "a")
    time.sleep(1.1)  # gzip would note the second
    other.write(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert gzip.decompress((tmp_path / "a").read_bytes()) == other.bytes()


def test_archives_can_follow_each_other() -> None:
    assert len(_example().bytes()) % 512 == 0


@pytest.mark.parametrize("path", ["", "/", "../etc/passwd", "a/../../b"])
def test_paths_outside(path: str) -> None:
    with pytest.raises(ValueError, match="not a path inside"):
        Cpio().file(path, b"")
