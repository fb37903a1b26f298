# SPDX-License-Identifier: GPL-2.0-or-later
"""A root file system from packages whose installation scripts are not run: what they would have made is made here."""

from __future__ import annotations

import os
from pathlib import Path

from harness.artifacts.command import command
from harness.errors import BuildFailed

_FILES = {
    "etc/passwd": "root::0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\ntty:x:5:\nkvm:x:104:\n",
    "etc/shells": "/bin/sh\n",
    "etc/hosts": "127.0.0.1 localhost apf-host\n",
    "etc/hostname": "apf-host\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/fstab": "",
}
_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "root", "mnt", "var/tmp", "var/log", "usr/sbin", "etc")


def finish(tree: Path) -> None:
    """Accounts, folders, busybox's links, compiled Python, no stray permissions.

    :raise BuildFailed: the tree lacks busybox or Python, or they do not run on this machine.
    """
    for name in _FOLDERS:
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        (tree / name).write_text(text)
    (tree / "etc/mtab").symlink_to("../proc/self/mounts")
    (tree / "var/run").symlink_to("../run")
    _busybox(tree)
    _python(tree)
    _permissions(tree)


def _busybox(tree: Path) -> None:
    """Links for all that busybox can do and the packages do not have."""
    busybox = tree / "usr/bin/busybox"
    if not busybox.is_file():
        raise BuildFailed("the root file system lacks busybox")
    for applet in command([busybox, "--list"]).split():
        if not any((tree / folder / applet).is_symlink() or (tree / folder / applet).exists() for folder in
                   ("usr/bin", "usr/sbin")):  # fmt: skip
            (tree / "usr/bin" / applet).symlink_to("busybox")


def _python(tree: Path) -> None:
    """Compile the standard library by the tree's own Python: starting it is slow enough under emulation."""
    (libraries,) = (path for path in (tree / "usr/lib").glob("python3.*") if path.is_dir())
    python = tree / "usr/bin" / libraries.name
    loader = tree / "usr/lib64/ld-linux-x86-64.so.2"
    if not loader.exists():  # a link to the place of the library
        loader = tree / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    words: list[str | Path] = [loader, "--library-path", tree / "usr/lib/x86_64-linux-gnu", python, "-S"]
    words += [
        "-m",
        "compileall",
        "-q",
        "-j1",
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
        tree,
        "-p",
        "/",
        libraries,
    ]
    command(words, env={"PYTHONHOME": str(tree / "usr"), "PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1"})
    if not (tree / "usr/bin/python3").exists():
        raise BuildFailed("the root file system lacks python3")


def _permissions(tree: Path) -> None:
    """Modes that depend on no umask."""
    for folder, _, files in os.walk(tree):
        os.chmod(folder, 0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    (tree / "tmp").chmod(0o1777)
    (tree / "root").chmod(0o700)
