# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual host for a person: booted from a kernel of choice, with the agent and the probe guest in it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts.catalog import find_kernel
from harness.artifacts.images import images
from harness.artifacts.kernels import built_kernel
from harness.artifacts.scratch import scratch_folder
from harness.artifacts.store import Store
from harness.errors import InfraFault
from harness.hosts import KINDS, HostOrder
from harness.hosts.lab_file import LabHost
from harness.hosts.performer import Payload
from harness.hosts.virtual.virtual_host import VirtualHost
from harness.run.request import Observer

_COPY_S = 120.0
_BOOT_S = 180
"""Of a lab machine that is emulated: 8 s alone on this one."""


@dataclass(frozen=True, slots=True)
class ShellHost:
    """``folder`` (console, known hosts) is removed with the host; ``files`` are what was copied into it."""

    host: VirtualHost
    folder: Path
    files: tuple[str, ...]


def lab_entry(shell: ShellHost, kernel_name: str) -> LabHost:
    """The host as an entry of a file of lab machines.  SIGUSR1 to this process is to reset it.

    :raise CatalogError: there is no such kernel.
    """
    access, entry = shell.host.access, find_kernel(kernel_name)
    return LabHost(
        "virtual", "127.0.0.1", access.keys.user, access.keys.client_key, access.keys.host_key, port=access.port,
        variant=entry.variant, fixes=entry.fixes, disk=shell.host.facts.disk, kexec=True,
        power=("kill", "-USR1", str(os.getpid())), boot_s=_BOOT_S,
    )  # fmt: skip


@contextlib.contextmanager
def start_shell_host(kernel_name: str, observer: Observer, *, reboots: bool = False) -> Iterator[ShellHost]:
    """Make what is missing, boot, copy the agent and the probe guest; the host is gone when the context ends.

    :param reboots: a reset boots it again; otherwise it is its end.
    :raise CatalogError: there is no such kernel.
    :raise ApfError: something cannot be built, or the host does not come up.
    """
    entry = find_kernel(kernel_name)
    kind = KINDS["virtual"]
    kind.check()
    store = Store(progress=observer.progress)
    kernel = built_kernel.kernel(store, entry, observer.progress)
    payload = Payload(images.agent_zipapp(store), images.probe_guest(store))
    with scratch_folder("apf-shell-") as folder:
        numbers = itertools.count(1)
        order = HostOrder(
            store, kernel, payload, lambda: folder / f"console-{next(numbers)}.txt", observer.progress, reboots=reboots
        )
        with kind.prepare(order).start() as host:
            if not isinstance(host, VirtualHost):
                raise InfraFault("the virtual kind of host gave something else")
            folder_there = host.facts.folder
            host.run(["mkdir", "-p", folder_there], deadline_s=_COPY_S)
            files = {payload.agent: f"{folder_there}/agent.pyz", payload.probe: f"{folder_there}/probe.elf"}
            for source, target in files.items():
                host.put(source, target, deadline_s=_COPY_S)
            yield ShellHost(host, folder, tuple(files.values()))
