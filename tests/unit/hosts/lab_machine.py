# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual host as a machine of the lab (`apf shell --lab`), and commands that use it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import layout
from tests.unit.hosts.qemus import qemus

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

    @property
    def qemu(self) -> int:
        """The process of the machine."""
        (pid,) = qemus(self.shell.pid)
        return pid

    def spinning(self) -> bool:
        """Whether its processors are busy all the time: with nothing to do there, that is the emulator's own hang
        (docs/adr/0005: a breakpoint of text patching that is removed on one processor is run for ever by another)."""
        threads = [path for path in Path(f"/proc/{self.qemu}/task").iterdir() if "CPU" in (path / "comm").read_text()]
        before, began = _ticks(threads), time.monotonic()
        time.sleep(3)
        waited = time.monotonic() - began
        used = (_ticks(threads) - before) / os.sysconf("SC_CLK_TCK")
        return used > 0.2 * waited  # of a processor; on a busy machine it does not get more

    def console(self) -> str:
        """The last that it has said."""
        found = sorted(self.path.parent.glob("apf-shell-*/console-*.txt"))
        return "\n".join(found[-1].read_text(errors="replace").splitlines()[-20:]) if found else ""

    def apf(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """`apf run` there."""
        return apf("run", *words, *self.where, "--results", str(folder))


def _ticks(threads: Sequence[Path]) -> int:
    return sum(sum(map(int, (path / "stat").read_text().rpartition(")")[2].split()[11:13])) for path in threads)


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
            cwd=layout.REPOSITORY, env=os.environ | {"TMPDIR": str(folder)}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log,
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
