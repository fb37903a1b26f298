# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders for a while, in the machine's folder for temporary files: removed at the end, and after a SIGKILL by the next
who wants one.

Whoever has one holds a lock on it, as those do who make an entry of the store.  A folder that nobody holds is a
leftover.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """An empty folder whose name begins so; those of this prefix are removed that dead processes of ours have left."""
    _sweep(prefix)
    folder, lock = _taken(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _taken(prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        lock = _lock(folder)
        if lock is not None:
            return folder, lock
        # Somebody sweeps, found it before it was locked, and removes it.


def _lock(folder: Path) -> int | None:
    """The descriptor that holds it; None: it is somebody's, or gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # 0: it was removed before we had the lock
            return descriptor
    os.close(descriptor)
    return None


def _sweep(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # what is no folder, and what is somebody else's
            lock = _lock(folder) if folder.lstat().st_uid == os.geteuid() else None
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
