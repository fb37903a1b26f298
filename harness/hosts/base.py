# SPDX-License-Identifier: GPL-2.0-or-later
"""What every host can do, on one screen.  The kinds of hosts/__init__.py implement it (most of it is StreamHost, in
stream.py), performer.py is written against it.

Life cycle: a host comes out of a ``start_*`` context manager usable and untainted; it is closed when that context
ends.  After an error of perform() the host is tainted: nothing is known of its state, and no scenario may use it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.contract.host_stalls import Stall
from harness.contract.kernel_trouble import Blame, Trouble
from harness.errors import InfraFault, KernelFault


@dataclass(frozen=True, slots=True)
class HostDescription:
    """What is known of a host before anything was run on it.

    :param kind: "virtual", "local" or "ssh"
    :param accel: what runs the host's own processor: "kvm", "tcg" or "hardware"
    :param release: ``uname -r`` of the kernel under test
    :param disk: block device that the agent may overwrite, for swap; empty: there is none, and
    :param no_disk: why
    :param folder: where our files go on it
    :param scope: cgroup in which everything stays that we start; empty: none
    :param memory_mib: how much a guest may take; 0: what is available
    :param captures: where captures go, where we may only read; empty: into our folder
    :param agent: the command of an agent that is there already; empty: it is sent
    """

    kind: str
    accel: str
    release: str
    disk: str
    no_disk: str = ""
    folder: str = "/run/apf-agent"
    scope: str = ""
    memory_mib: int = 0
    captures: str = ""
    agent: tuple[str, ...] = ()


def trouble_error(found: Trouble, hint: str = "") -> KernelFault | InfraFault:
    """The error for a finding in a host's kernel log: the kernel's fault, or that of the machine below it."""
    message = f"{found.kind} on the host: {found.line}"
    if found.blame is Blame.KERNEL:
        return KernelFault(message, hint=hint, said=found.line)
    return InfraFault(message, hint=hint)


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended by itself.  ``stdout`` lacks the lines that were streamed."""

    code: int
    stdout: bytes
    stderr: bytes


class Conversation(Protocol):
    """A command that answers lines of its standard input, one at a time."""

    def ask(self, line: str, *, deadline_s: float, on_line: Callable[[str], bool]) -> None:
        """Send a line; hear the lines of the answer until ``on_line`` returns True for one.

        :raise DeadlineExpired: the answer did not end in time; the command was terminated.
        :raise HostLost: the command, the host or the link ended first.
        :raise KernelFault: see Host.run.
        """

    def close(self) -> None:
        """End the command's standard input; never raises."""


class Host(Protocol):
    """A Linux whose KVM and memory management are under test."""

    @property
    def facts(self) -> HostDescription: ...

    @property
    def tainted(self) -> str:
        """Why no further scenario may run here; empty while it is clean."""

    def taint(self, reason: str) -> None:
        """Say that this host must not be used again; the first reason is kept."""

    def put(self, source: Path, target: str, *, deadline_s: float) -> None:
        """Copy a file of the runner to the absolute path ``target`` of the host.

        :raise HostLost: the host or the link to it went away.
        """

    def run(
        self, argv: list[str], *, deadline_s: float, on_line: Callable[[str], None] | None = None
    ) -> Completed:  # fmt: skip
        """Run a command, as root, to its end.  Its standard input stays open until then: so it can notice our death.

        ``on_line`` receives each line of standard output as it comes.  ``deadline_s`` is for the whole command.

        :raise DeadlineExpired: it did not end in time; its process group was killed.
        :raise HostLost: the host or the link went away; whether the command ran to its end is unknown.
        :raise KernelFault: the host's console showed a panic, an oops, a hung task or a lockup meanwhile.
        """

    def converse(self, argv: list[str]) -> Conversation:
        """Start a command, as root, that serves until its input ends; it is terminated with the host at the latest."""

    def fetch(self, source: str, target: Path, *, deadline_s: float, remove: bool = False) -> None:
        """Copy the files below the folder ``source`` of the host into the folder ``target`` of the runner.

        ``remove``: the same command removes the folder from the host.
        """

    def console_mark(self) -> int:
        """A mark for console(): how much console text there is now.  Its unit is the host's own (bytes of a console,
        the number of the last message of a kernel log)."""

    def console(self, since: int = 0) -> bytes:
        """Console text, or kernel log, after the mark ``since``; 0: all of it."""

    def stalls(self, since: int = 0) -> tuple[Stall, ...]:
        """The stalls in that text, and whether the host could run meanwhile."""

    def guest_stalls(self, console: bytes) -> tuple[Stall, ...]:
        """Those in the console of a Linux guest that has just run on it."""

    def slowness(self) -> float:
        """How many times longer than by itself the host has taken lately for what it did, because its machine had no
        processor for it; 1.0 where nobody can tell, or where it has processors of its own."""

    def check(self) -> None:
        """:raise KernelFault: the console shows a finding.  :raise HostLost: the host is gone."""

    def diagnose(self) -> str:
        """For people: the last lines of the console and what is known of the processes; never raises."""
