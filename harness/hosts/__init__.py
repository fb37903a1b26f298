# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a host comes from, and how the agent is shipped to it, started and watched.  The interface is base.py.

KINDS is the table of all kinds of host.  A new kind is a module with an opener, a row here, and a line of
docs/contributing.md.  Openers are imported when they are first called: SSH costs a second that `apf list` can save.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.artifacts.kernels.built_kernel import BuiltKernel
    from harness.artifacts.store import Store
    from harness.hosts.base import Host
    from harness.hosts.performer import Payload
    from harness.progress import Progress


@dataclass(frozen=True, slots=True)
class HostOrder:
    """What is wanted of a host.

    :param kernel: the kernel under test; None for kinds that do not boot one
    :param payload: what is shipped to it, for the trial that decides on an accelerator
    :param console: a new file for the console of each host that is started
    :param disk: block device of the host that may be overwritten; empty: the kind finds one
    """

    store: Store
    kernel: BuiltKernel | None
    payload: Payload
    console: Callable[[], Path]
    progress: Progress
    disk: str = ""


@dataclass(frozen=True, slots=True)
class HostOpener:
    """All that a host needs is there.  ``start`` gives one host, as often as it is called; ``facts`` for the report."""

    start: Callable[[], AbstractContextManager[Host]]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostKind:
    """One kind of host.

    :param boots: it boots the kernel under test, so that any kernel can be asked for and there can be several at once;
        otherwise it runs what it runs
    :param check: raises an ApfError when this machine can have none; costs nothing
    :param prepare: finds or makes what is needed before the first start
    """

    about: str
    boots: bool
    check: Callable[[], None]
    prepare: Callable[[HostOrder], HostOpener]


def _check_virtual() -> None:
    from harness.hosts.virtual.vm import find_qemu

    find_qemu()


def _virtual(order: HostOrder) -> HostOpener:
    from harness.hosts.virtual.opener import prepare

    return prepare(order)


def _check_local() -> None:
    pass  # what it lacks is found, and said, when it is started


def _local(order: HostOrder) -> HostOpener:
    from harness.hosts.local import prepare

    return prepare(order)


DEFAULT_KIND = "virtual"
KINDS: Mapping[str, HostKind] = MappingProxyType(
    {
        "virtual": HostKind("a virtual machine boots the kernel under test", True, _check_virtual, _virtual),
        "local": HostKind("this machine, with the kernel that it runs", False, _check_local, _local),
    }
)
