# SPDX-License-Identifier: GPL-2.0-or-later
"""Gated sources on a kernel: whatever is killed, stopped or lost while a page is outstanding, it is undone.

How fast is measured apart from that (``make bench``): a host under TCG is as slow as the machine that it runs on.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts.images import images
from harness.artifacts.kernels import built_kernel
from harness.artifacts.store import Store
from harness.contract.plan import to_json
from harness.hosts.virtual.virtual_host import CMDLINE, Keys, VirtualHost, start_virtual_host
from harness.hosts.virtual.vm import HostMachine
from harness.scenario.build import build_plan
from harness.scenario.load import load_text
from tests.unit.agent.gate import break_guest
from tests.unit.waiting import wait_until

pytestmark = pytest.mark.host

UNDO_SECONDS = 2.0
"""On a machine that does nothing else."""
HOST_S = 600.0
SCRIPT = Path(__file__).with_name("break_it.py")
GUEST_SCRIPT = SCRIPT.with_name("break_guest.py")
AGENT = "/run/gate/agent.pyz"
PLAN = """
id = "held"
title = "a page that nobody lets go"
deadline_s = 60
[swap]
{source}
release = "step"
[pages.f]
groups = 1
start = "{start}"
[[steps]]
touch = "f"
[[steps]]
host = [{{ do = "wait-settled" }}]
[[steps]]
wait_all = true
[[timed]]
at_ms = 60000
host = [{{ do = "release" }}]
"""
SOURCES = {
    "gated": ('kind = "gated"\npage_cluster = 3', "swapped"),
    "userfaultfd": ('kind = "userfaultfd"', "untouched"),
}


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
        for script in (SCRIPT, GUEST_SCRIPT):
            booted.put(script, f"/run/gate/{script.name}", deadline_s=60)
        booted.put(images.probe_guest(store), "/run/gate/probe.elf", deadline_s=60)
        yield booted


def perform(host: VirtualHost, backing: str, harm: str) -> dict[str, Any]:
    folder = f"/run/gate/{backing}-{harm}"
    argv = ["env", f"PYTHONPATH={AGENT}", "python3", "/run/gate/break_it.py", backing, harm, folder]
    done = host.run(argv, deadline_s=HOST_S)
    assert done.code == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


BACKINGS = pytest.mark.parametrize("backing", ["swap", "file"])
HARMS = pytest.mark.parametrize("harm", ["nothing", "server-killed", "agent-killed", "both-killed", "both-stopped"])


@pytest.mark.bench
@BACKINGS
@HARMS
def test_how_fast_it_is_undone(host: VirtualHost, backing: str, harm: str) -> None:
    assert perform(host, backing, harm)["seconds"] < UNDO_SECONDS


@BACKINGS
@HARMS
def test_undone(host: VirtualHost, backing: str, harm: str) -> None:
    found = perform(host, backing, harm)
    print(backing, harm, found)
    assert found.pop("slept") == "D"  # else nothing was tried
    del found["seconds"]
    assert found.pop("reader") in ("", "Z") and found.pop("server") in ("", "Z")
    assert found == {"problems": [], "left": [], "owner": 0, "swaps": [], "mounted": False}


def prepare(host: VirtualHost, tmp_path: Path, source: str, name: str) -> str:
    """A folder on the host with all that an agent needs for a plan whose page nobody lets go."""
    section, start = SOURCES[source]
    folder = f"/run/gate/{name}"
    (tmp_path / "plan.json").write_text(
        to_json(build_plan(load_text("held", PLAN.format(source=section, start=start))[0], 0x1234))
    )
    host.run(["mkdir", "-p", folder], deadline_s=30)
    host.put(tmp_path / "plan.json", f"{folder}/plan.json", deadline_s=30)
    for file in ("agent.pyz", "probe.elf"):
        host.run(["ln", "-sf", f"/run/gate/{file}", f"{folder}/{file}"], deadline_s=30)
    return folder


def break_with_guest(host: VirtualHost, tmp_path: Path, source: str, harm: str, name: str) -> dict[str, Any]:
    folder = prepare(host, tmp_path, source, f"{name}-{source}-{harm}")
    argv = ["env", f"PYTHONPATH={AGENT}", "python3", "/run/gate/break_guest.py", harm, folder]
    done = host.run(argv, deadline_s=HOST_S)
    assert done.code == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


GUEST_HARMS = pytest.mark.parametrize("harm", ["nothing", "server-killed", "agent-killed", "both-stopped"])


@pytest.mark.bench
@pytest.mark.parametrize("source", SOURCES)
@GUEST_HARMS
def test_how_fast_it_is_undone_with_a_guest(host: VirtualHost, tmp_path: Path, source: str, harm: str) -> None:
    found = break_with_guest(host, tmp_path, source, harm, "fast")
    assert found["seconds"] < UNDO_SECONDS and found["gone"] < UNDO_SECONDS


@pytest.mark.parametrize("source", SOURCES)
@GUEST_HARMS
def test_undone_with_a_guest(host: VirtualHost, tmp_path: Path, source: str, harm: str) -> None:
    found = break_with_guest(host, tmp_path, source, harm, "guest")
    print(source, harm, found)
    assert found.pop("slept") >= 1  # else nothing was tried
    del found["seconds"], found["gone"]
    assert found.pop("server") in ("", "Z") and found.pop("qemu") in ("", "Z")
    assert found == {"problems": [], "left": [], "kind": "nbd" if source == "gated" else source, "asleep": 0,
                     "swaps": []}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_the_link_is_lost(host: VirtualHost, tmp_path: Path, source: str) -> None:
    """The runner's own SSH client dies; the agent sees its input end."""
    folder = prepare(host, tmp_path, source, f"link-{source}")
    known = tmp_path / "known_hosts"
    known.write_text(host.access.known_hosts())
    argv = [*host.access.command(known), " ".join(break_guest.agent_command(folder))]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as link:
        assert link.stdout is not None
        for line in link.stdout:
            if break_guest.SETTLED in line and "done" in line:
                break
        assert not exists(host, f"{folder}/out/end.json")
        link.kill()
    wait_until(lambda: exists(host, f"{folder}/out/end.json"), "the end of the run")
    assert json.loads(text(host, f"{folder}/out/end.json"))["undone"] is True
    assert "Filename" in text(host, "/proc/swaps") and len(text(host, "/proc/swaps").splitlines()) == 1


def text(host: VirtualHost, path: str) -> str:
    return host.run(["cat", path], deadline_s=30).stdout.decode()


def exists(host: VirtualHost, path: str) -> bool:
    return host.run(["test", "-e", path], deadline_s=30).code == 0
