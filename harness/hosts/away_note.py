# SPDX-License-Identifier: GPL-2.0-or-later
"""What the runner notes, on its own disk, before it boots another kernel on a machine of the lab: the journal of that.

Who brings the machine back needs it: the run itself, or, if that was killed, the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.contract.structure import from_json, to_json
from harness.errors import UsageError
from harness.hosts.reservation import HostBusy
from harness.progress import Progress

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Away:
    """A machine that was told to boot another kernel.

    :ivar boot: boot_id of its own kernel at that time; ``release``, ``version``: of that kernel.
    :ivar kernel: the other one's name.
    """

    boot: str
    release: str
    version: str
    kernel: str


@dataclass(frozen=True, slots=True)
class AwayNote:
    """The note of one machine, held by one process; made by hold_note()."""

    path: Path

    def read(self) -> Away | None:
        """None: the machine runs its own kernel, as far as we know.  One that is torn was not acted upon."""
        try:
            return from_json(Away, self.path.read_bytes())
        except (FileNotFoundError, UsageError):
            return None

    def write(self, away: Away) -> None:
        """Durable when this returns. :raise OSError:"""
        with self.path.open("w") as file:
            file.write(to_json(away))
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def clear(self) -> None:
        """The machine is back."""
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def hold_note(folder: Path, name: str, key: str, wait_s: float, progress: Progress) -> Iterator[AwayNote]:
    """The note of a machine for us alone.

    :param folder: where such notes are on this machine; ``key``: which machine that is, beside its name.
    :raise HostBusy: another run from here has the machine away, and has not ended in ``wait_s`` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    note, end = AwayNote(folder / f"{stem}.json"), time.monotonic() + wait_s
    with (folder / f"{stem}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                away = note.read()
                told = f"another run has booted {away.kernel} on {name}" if away else f"another run is booting {name}"
                if time.monotonic() >= end:
                    raise HostBusy(told, hint="--wait SECONDS waits for its end") from None
                progress(f"waiting: {told}")
                time.sleep(_POLL_S)
        yield note
