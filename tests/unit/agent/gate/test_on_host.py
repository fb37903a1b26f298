# SPDX-License-Identifier: GPL-2.0-or-later
"""The gated device on a kernel: whatever is killed or stopped while a read is outstanding, it is undone in 2 s."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts.images import images
from harness.artifacts.kernels import built_kernel
from harness.artifacts.store import Store
from harness.hosts.virtual.virtual_host import CMDLINE, Keys, VirtualHost, start_virtual_host
from harness.hosts.virtual.vm import HostMachine

pytestmark = pytest.mark.host

UNDO_SECONDS = 2.0
SCRIPT = Path(__file__).with_name("break_it.py")
AGENT = "/run/gate/agent.pyz"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualHost]:
    """A virtual host with Debian's 6.1 under TCG, the agent and the script on it."""
    store = Store()
    kernel = built_kernel.kernel(store, "debian-6.1")
    image = images.host_image(store)
    machine = HostMachine("tcg", kernel.bzimage, images.host_initramfs(store, kernel), image.root_ext4, CMDLINE)
    keys = Keys(image.ssh_client_key, image.ssh_host_public_key)
    console = tmp_path_factory.mktemp("host") / "console.txt"
    with start_virtual_host(machine, keys, kernel.release, console) as booted:
        booted.run(["mkdir", "-p", "/run/gate"], deadline_s=30)
        booted.put(images.agent_zipapp(store), AGENT, deadline_s=60)
        booted.put(SCRIPT, "/run/gate/break_it.py", deadline_s=60)
        yield booted


def perform(host: VirtualHost, backing: str, harm: str) -> dict[str, Any]:
    folder = f"/run/gate/{backing}-{harm}"
    argv = ["env", f"PYTHONPATH={AGENT}", "python3", "/run/gate/break_it.py", backing, harm, folder]
    done = host.run(argv, deadline_s=120)
    assert done.code == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("backing", ["swap", "file"])
@pytest.mark.parametrize("harm", ["nothing", "server-killed", "agent-killed", "both-killed", "both-stopped"])
def test_undone_in_time(host: VirtualHost, backing: str, harm: str) -> None:
    found = perform(host, backing, harm)
    print(backing, harm, found)
    assert found.pop("slept") == "D"  # else nothing was tried
    assert found.pop("seconds") < UNDO_SECONDS
    assert found.pop("reader") in ("", "Z") and found.pop("server") in ("", "Z")
    assert found == {"problems": [], "left": [], "owner": 0, "swaps": [], "mounted": False}
