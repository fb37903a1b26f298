# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual host as a machine of the lab (`apf shell --lab`), and commands that use it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import layout

APF = [sys.executable, "-m", "harness.cli"]
NAME = "virtual"
_UP_S = 300.0


@dataclass(frozen=True, slots=True)
class Lab:
    """The file of lab machines that has a virtual host as "virtual"; ``shell``: the process that keeps it."""

    path: Path
    shell: subprocess.Popen[bytes]

    @property
    def where(self) -> list[str]:
        """The options that name it."""
        return ["--host", f"ssh:{NAME}", "--lab", str(self.path)]

    def apf(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """`apf run` there."""
        return apf("run", *words, *self.where, "--results", str(folder))


def apf(*words: str) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    return subprocess.run(
        [*APF, *words], cwd=layout.REPOSITORY, capture_output=True, text=True, timeout=900, check=False
    )


@contextlib.contextmanager
def start_lab(folder: Path, kernel: str = "debian-6.1") -> Iterator[Lab]:
    """The machine, until the context ends; its end must be an orderly one unless ``shell`` has ended before."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lab.toml"
    with (folder / "log").open("wb") as log:
        shell = subprocess.Popen(
            [*APF, "shell", "--kernel", kernel, "--lab", str(path)],
            cwd=layout.REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        give_up = time.monotonic() + _UP_S
        while not (path.exists() and path.read_text().endswith("\n")):
            assert shell.poll() is None and time.monotonic() < give_up, (folder / "log").read_text()
            time.sleep(0.2)
        yield Lab(path, shell)
    finally:
        if shell.poll() is None:
            shell.send_signal(signal.SIGINT)
            assert shell.wait(60) == 0, (folder / "log").read_text()
