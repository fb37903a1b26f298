# SPDX-License-Identifier: GPL-2.0-or-later
"""labgrid's own coordinator and exporter on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_BIN = Path(sys.executable).parent
_UP_S = 60.0


@dataclass(frozen=True, slots=True)
class Labgrid:
    """``address`` of the coordinator."""

    address: str
    folder: Path

    def client(self, *words: str, **env: str) -> str:
        """What labgrid-client says."""
        done = subprocess.run(
            [str(_BIN / "labgrid-client"), "-x", self.address, *words],
            cwd=self.folder, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False,
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
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    (folder / "exporter.yaml").write_text("".join(f"{name}:\n{text}" for name, text in places.items() if text))
    with contextlib.ExitStack() as stack, (folder / "log").open("wb") as log:

        def start(*words: str) -> None:
            process = subprocess.Popen([str(_BIN / words[0]), *words[1:]], cwd=folder, stdout=log, stderr=log)
            stack.callback(process.wait, 30)
            stack.callback(process.kill)

        start("labgrid-coordinator", "-l", address)
        lab = Labgrid(address, folder)
        give_up = time.monotonic() + _UP_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(address.split(":")[1]))):
                break
            assert time.monotonic() < give_up, (folder / "log").read_text()
            time.sleep(0.1)
        start("labgrid-exporter", "-c", address, "-n", "lab", "exporter.yaml")
        for name in places:
            lab.client("-p", name, "create")
            lab.client("-p", name, "add-match", f"lab/{name}/*")
        while not all(f"lab/{name}/" in lab.client("resources") for name, text in places.items() if text):
            assert time.monotonic() < give_up, (folder / "log").read_text()
        yield lab
