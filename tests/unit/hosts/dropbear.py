# SPDX-License-Identifier: GPL-2.0-or-later
"""A real SSH server on this machine: the dropbear of the virtual host's image, with keys of its own.

It runs in a mount namespace in which root's home is a folder of the test, because that is where it looks for the keys
that may log in.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.artifacts.images.keys import host_keys
from harness.artifacts.store import Store, default_root
from harness.hosts.deadline import Deadline
from harness.hosts.ssh_link import Link
from tests.unit.ports import held_port
from tests.unit.waiting import HANG_S

_PACKAGES = ("dropbear-bin", "libtomcrypt1", "libtommath1")


@dataclass(frozen=True, slots=True)
class Server:
    """Where it listens, and the keys of both sides."""

    port: int
    host_key: str
    client_key: Path

    def connect(self) -> Link:
        """:raise HostLost, DeadlineExpired: see Link.open."""
        return Link.open(
            "127.0.0.1", self.port, "root", client_key=self.client_key, host_key=self.host_key,
            deadline=Deadline.after(HANG_S, "dropbear"), check=lambda: None,
        )  # fmt: skip


@contextlib.contextmanager
def start_dropbear(folder: Path) -> Iterator[Server]:
    """The server; skips the test where it cannot be had (no root, or the host image was never made here)."""
    archives = default_root() / "apt/archives"
    debs = [next(iter(sorted(archives.glob(f"{name}_*.deb"))), None) for name in _PACKAGES]
    if os.geteuid() != 0 or None in debs:
        pytest.skip("needs root, and the packages of the host image (make smoke fetches them)")
    for deb in debs:
        assert deb is not None
        subprocess.run(["dpkg-deb", "-x", deb, folder / "x"], check=True)
    env = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(folder / "x/usr/lib/x86_64-linux-gnu")}
    made = subprocess.run(
        [folder / "x/usr/bin/dropbearkey", "-t", "ed25519", "-f", folder / "hostkey"],
        env=env, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    host_key = " ".join(next(line for line in made.splitlines() if line.startswith("ssh-")).split()[:2])
    keys = host_keys(Store(folder / "store"))
    (folder / "home/.ssh").mkdir(parents=True)
    (folder / "home/.ssh/authorized_keys").write_text(keys.client_public + "\n")
    for path, mode in (
        (folder / "home", 0o700),
        (folder / "home/.ssh", 0o700),
        (folder / "home/.ssh/authorized_keys", 0o600),
    ):
        path.chmod(mode)
    script = 'mount --bind "$1" /root && shift && exec "$@"'
    with held_port() as port, (folder / "log").open("wb") as log:
        words = [str(folder / "x/usr/sbin/dropbear"), "-F", "-E", "-p", f"127.0.0.1:{port}"]
        words += ["-r", str(folder / "hostkey")]
        server = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script, "sh", str(folder / "home"), *words],
            env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield Server(port, host_key, keys.client_private)
        finally:
            server.terminate()
            server.wait(HANG_S)
