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

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.artifacts.kernels.built_kernel import BuiltKernel
    from harness.artifacts.store import Store
    from harness.hosts.base import Host
    from harness.hosts.performer import Payload
    from harness.progress import Progress


@dataclass(frozen=True, slots=True)
class HostOrder:
    """What is wanted of a host.

    :param kernel: the kernel under test; None: the one that runs there, for kinds that do not boot one
    :param payload: what is shipped to it, for the trial that decides on an accelerator
    :param console: a new file for the console of each host that is started
    :param disk: block device of the host that may be overwritten; empty: the kind finds one
    :param name: of the machine, for kinds that have several; ``lab``: the file that describes it
    :param wanted: for kinds that boot none: the kernel that must run there, by name and by its bzImage's version
        string; None: any
    :param wait_s: how long to wait for another run that has the machine
    :param reboots: of a virtual host: a reset is one, as on a real machine; otherwise it is the end
    :param host_qemu: what runs a virtual host, as find_qemu() takes it
    :param guest_qemu: the Debian release that a virtual host consists of, with its QEMU; empty: the image's own
    """

    store: Store
    kernel: BuiltKernel | None
    payload: Payload
    console: Callable[[], Path]
    progress: Progress
    disk: str = ""
    name: str = ""
    lab: Path = field(default_factory=Path)
    wanted: tuple[str, str] | None = None
    wait_s: float = 0.0
    reboots: bool = False
    host_qemu: str = ""
    guest_qemu: str = ""


@dataclass(frozen=True, slots=True)
class HostOpener:
    """All that a host needs is there.  ``start`` gives one host, as often as it is called; ``facts`` for the report."""

    start: Callable[[], AbstractContextManager[Host]]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OwnKernel:
    """The kernel that a machine runs, as far as it can be said without asking it.

    :ivar label: what it is called in results; ``variant`` and ``fixes``: the model for it.
    :ivar kexec: it may be booted into another kernel.
    """

    label: str
    variant: str = "nowait"
    fixes: tuple[str, ...] = ()
    kexec: bool = False


@dataclass(frozen=True, slots=True)
class HostKind:
    """One kind of host.

    :param boots: it boots the kernel under test, so that any kernel can be asked for and there can be several at once;
        otherwise it runs what it runs
    :param named: there are several: which is meant is said as in ``ssh:NAME``
    :param check: raises an ApfError when this machine can have none; costs nothing
    :param prepare: finds or makes what is needed before the first start
    :param own: the kernel of one that boots none, by its name and the file of lab machines
    """

    about: str
    boots: bool
    named: bool
    check: Callable[[], None]
    prepare: Callable[[HostOrder], HostOpener]
    own: Callable[[str, Path], OwnKernel]


@dataclass(frozen=True, slots=True)
class HostChoice:
    """What ``--host`` names; made by find_host()."""

    word: str
    kind: HostKind
    name: str
    lab: Path

    @property
    def boots(self) -> bool:
        return self.kind.boots

    def own(self) -> OwnKernel:
        """:raise UsageError: the file of lab machines is wrong, or has no such machine."""
        return self.kind.own(self.name, self.lab)


def find_host(word: str, lab: Path) -> HostChoice:
    """The host that a word means: "virtual", "local", "ssh:NAME", "labgrid:PLACE".

    :raise UsageError: none.
    """
    kind, colon, name = word.partition(":")
    if kind not in KINDS:
        raise UsageError(f"there is no host {word!r}", hint=f"there are {', '.join(host_words())}")
    if KINDS[kind].named != bool(name) or bool(colon) != bool(name):
        wanted = f"needs a name: {kind}:NAME" if KINDS[kind].named else "has no name"
        raise UsageError(f"--host {word}: {kind} {wanted}")
    return HostChoice(word, KINDS[kind], name, lab)


def host_words() -> dict[str, str]:
    """How each kind is asked for, and what it is."""
    return {f"{word}:NAME" if kind.named else word: kind.about for word, kind in KINDS.items()}


def _check_virtual() -> None:
    from harness.artifacts.images.packaged_qemu import machine_qemu

    machine_qemu()


def _virtual(order: HostOrder) -> HostOpener:
    from harness.hosts.virtual.opener import prepare

    return prepare(order)


def _local(order: HostOrder) -> HostOpener:
    from harness.hosts.local import prepare

    return prepare(order)


def _ssh(order: HostOrder) -> HostOpener:
    from harness.hosts.ssh import prepare

    return prepare(order)


def _labgrid(order: HostOrder) -> HostOpener:
    from harness.hosts.labgrid_place import prepare

    return prepare(order)


def _check_nothing() -> None:
    pass  # what it lacks is found, and said, when it is started


def _none(_name: str, _lab: Path) -> OwnKernel:
    raise UsageError("a virtual host runs the kernel that it is asked for")


def _own_local(_name: str, _lab: Path) -> OwnKernel:
    return OwnKernel("local")


def _own_ssh(name: str, lab: Path) -> OwnKernel:
    from harness.hosts.lab_file import find_lab_host

    entry = find_lab_host(lab, name)[-1]
    return OwnKernel(name, entry.variant, entry.fixes, entry.kexec)


DEFAULT_KIND = "virtual"
KINDS: Mapping[str, HostKind] = MappingProxyType(
    {
        "virtual": HostKind(
            "a virtual machine boots the kernel under test", True, False, _check_virtual, _virtual, _none
        ),
        "local": HostKind(
            "this machine, with the kernel that it runs", False, False, _check_nothing, _local, _own_local
        ),
        "ssh": HostKind(
            "a machine of the lab, with the kernel that it runs", False, True, _check_nothing, _ssh, _own_ssh
        ),
        "labgrid": HostKind("a machine that is a place of labgrid", False, True, _check_nothing, _labgrid, _own_ssh),
    }
)
