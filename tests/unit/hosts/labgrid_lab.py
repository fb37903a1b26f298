# SPDX-License-Identifier: GPL-2.0-or-later
"""labgrid's own coordinator and exporter on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.unit.ports import held_port
from tests.unit.waiting import HANG_S, wait_until

_BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Labgrid:
    """``address`` of the coordinator."""

    address: str
    folder: Path

    def client(self, *words: str, **env: str) -> str:
        """What labgrid-client says."""
        done = subprocess.run(
            [str(_BIN / "labgrid-client"), "-x", self.address, *words],
            cwd=self.folder, env=os.environ | env, capture_output=True, text=True, timeout=HANG_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def holder(self, place: str) -> str:
        """Who has acquired a place; empty: nobody."""
        lines = self.client("-p", place, "show").splitlines()
        (line,) = (line for line in lines if line.strip().startswith("acquired:"))
        return line.partition(":")[2].strip().removeprefix("None")


@contextlib.contextmanager
def start_labgrid(folder: Path, places: Mapping[str, str]) -> Iterator[Labgrid]:
    """A coordinator that has these places.

    :param places: by name the resources of each, as YAML of an exporter, indented by two.
    """
    (folder / "exporter.yaml").write_text("".join(f"{name}:\n{text}" for name, text in places.items() if text))
    with held_port() as port, contextlib.ExitStack() as stack, (folder / "log").open("wb") as log:
        address = f"127.0.0.1:{port}"

        def start(*words: str) -> None:
            process = subprocess.Popen([str(_BIN / words[0]), *words[1:]], cwd=folder, stdout=log, stderr=log)
            stack.callback(process.wait, HANG_S)
            stack.callback(process.kill)

        start("labgrid-coordinator", "-l", address)
        lab = Labgrid(address, folder)

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return True
            return False

        def shown() -> bool:
            told = lab.client("resources")
            return all(f"lab/{name}/" in told for name, text in places.items() if text)

        wait_until(answers, "the coordinator")
        start("labgrid-exporter", "-c", address, "-n", "lab", "exporter.yaml")
        for name in places:
            lab.client("-p", name, "create")
            lab.client("-p", name, "add-match", f"lab/{name}/*")
        wait_until(shown, "the exporter's resources")
        yield lab
