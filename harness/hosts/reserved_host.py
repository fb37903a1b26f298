# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that is not ours alone as a host: what the local one and those of the lab have in common."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import socket
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.contract.host_stalls import Stall, guest_stalls_in, stalls_in
from harness.contract.kernel_trouble import find_trouble
from harness.errors import HostLost, InfraFault
from harness.hosts.base import HostDescription, trouble_error
from harness.hosts.deadline import Deadline
from harness.hosts.reservation import Reservation, ReserveWish, reserve
from harness.hosts.stream import Stream, StreamHost
from harness.progress import Progress

_COPY_S = 120.0
_ASK_S = 60.0
_FROM_INPUT = """\
import os, sys
left, file = int(sys.argv[1]), os.memfd_create("apf-agent", 0)
while left and (chunk := os.read(0, min(left, 1 << 16))):
    left -= os.write(file, chunk)
if left:
    sys.exit("the agent came only in part")
os.execv(sys.executable, ["python3", f"/proc/self/fd/{file}", *sys.argv[2:]])
"""
"""Runs a program that comes first on its input.  It is never a file there, so a run that is cut short leaves none."""


@dataclass(frozen=True, slots=True)
class RunningKernel:
    """Which build of a kernel runs on a machine: ``uname -r`` and ``uname -v``."""

    release: str
    version: str

    def is_build(self, banner: str) -> bool:
        """Whether a bzImage with this version string is it (arch/x86/boot/version.c: release, builder, version)."""
        return banner.split(" ")[0] == self.release and banner.endswith(f" {self.version}")

    def require(self, name: str, wanted: str, banner: str) -> None:
        """:raise InfraFault: it runs another kernel than ``wanted``, whose bzImage has ``banner``."""
        if not self.is_build(banner):
            raise InfraFault(
                f"{name} does not run {wanted}: it runs {self.release} {self.version}, and {wanted} is {banner}",
                hint="boot that kernel there, let apf do it (kexec, docs/lab.md), or leave --kernel out to test the one"
                " that runs",
            )


class BareHost(StreamHost):
    """Commands on a machine, as root, by ``sudo`` where we are not; nothing of it is ours yet.

    :ivar name: for messages.
    :ivar agent: the command of an agent that root has installed: then it alone runs as root; empty: everything does.
    """

    name: str
    sudo: tuple[str, ...] = ()
    agent: tuple[str, ...] = ()

    @abstractmethod
    def start(self, argv: list[str]) -> Stream:
        """Start a command as the user that we are there.  :raise InfraFault, HostLost: see StreamHost.open."""

    def open(self, argv: list[str]) -> Stream:
        as_root = not self.agent or tuple(argv[: len(self.agent)]) == self.agent
        return self.start([*self.sudo, *argv] if as_root else argv)

    def kernel(self) -> RunningKernel:
        """Which kernel runs there.  :raise InfraFault, HostLost: it does not tell."""
        told = []
        for option in ("-r", "-v"):
            done = self.run(["uname", option], deadline_s=_ASK_S)
            if done.code != 0:
                raise InfraFault(f"{self.name}: uname {option}: {done.stderr.decode(errors='replace').strip()}")
            told.append(done.stdout.decode(errors="replace").strip())
        return RunningKernel(*told)


class ReservedHost(StreamHost):
    """See base.Host; made by reserved_host()."""

    def __init__(self, facts: HostDescription, bare: BareHost, reservation: Reservation) -> None:
        self._facts = facts
        self._bare = bare
        self._reservation = reservation
        self._tainted = ""
        self._log_start = reservation.mark()

    @property
    def facts(self) -> HostDescription:
        return self._facts

    @property
    def tainted(self) -> str:
        return self._tainted

    def taint(self, reason: str) -> None:
        self._tainted = self._tainted or reason

    def open(self, argv: list[str]) -> Stream:
        return self._bare.open(argv)

    def console_mark(self) -> int:
        return self._reservation.mark()

    def console(self, since: int = 0) -> bytes:
        return self._reservation.log(since)

    def stalls(self, since: int = 0) -> tuple[Stall, ...]:
        return tuple(stalls_in(self.console(since)))

    def guest_stalls(self, console: bytes) -> tuple[Stall, ...]:
        return guest_stalls_in(console)

    def slowness(self) -> float:
        return 1.0

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """A machine that is lost may have said why."""
        try:
            yield
        except HostLost:
            found = find_trouble(self._reservation.log(self._log_start))
            if found is not None:
                raise trouble_error(found) from None
            raise

    def check(self) -> None:
        found = find_trouble(self._reservation.log(self._log_start))
        if found is not None:
            raise trouble_error(found)
        self._reservation.check()

    def diagnose(self) -> str:
        tail = self._reservation.log(self._log_start).decode(errors="replace").splitlines()[-20:]
        return "\n".join([f"last messages of the kernel of {self._bare.name}:", *tail])


@dataclass(frozen=True, slots=True)
class ReservedOrder:
    """``agent``: the file that is sent; ``disk``: block device of the machine that may be overwritten, empty: a loop
    device over a file of at most ``disk_mib`` is made; ``wanted``: the kernel that must run there and its bzImage's
    version string, None: any; ``state``: folder of the machine for locks and runs; ``compare``: that
    the machine is not as before, in whatever way, is an error.
    """

    kind: str
    agent: Path
    progress: Progress
    disk: str = ""
    disk_mib: int = 4096
    memory_mib: int = 0
    scratch: str = "/var/tmp"
    wait_s: float = 0.0
    limit_s: float = 86400.0
    wanted: tuple[str, str] | None = None
    state: str = "/run/apf-runs"
    compare: bool = True


def open_sent(open_stream: Callable[[list[str]], Stream], agent: Path, argv: list[str]) -> Stream:
    """Start a command of an agent that is sent for it.

    :raise InfraFault, HostLost, DeadlineExpired: it cannot be started, or is gone before it has the agent.
    """
    program = agent.read_bytes()
    stream = open_stream(["python3", "-c", _FROM_INPUT, str(len(program)), *argv])
    try:
        stream.send(program, Deadline.after(_COPY_S, "sending the agent"))
    except BaseException:
        stream.close()
        raise
    return stream


@contextlib.contextmanager
def reserved_host(
    bare: BareHost, order: ReservedOrder, on_reserved: Callable[[Reservation], None] = lambda _reservation: None
) -> Iterator[ReservedHost]:
    """The machine as a host, for us alone, until the context ends.

    :param on_reserved: called when the machine is ours.
    :raise HostBusy, InfraFault: see reservation.reserve.
    :raise InfraFault: it runs another kernel than the one that is wanted.
    """
    name = secrets.token_hex(6)
    wish = ReserveWish(
        name, f"{os.environ.get('USER', 'somebody')}@{socket.gethostname()}", order.wait_s, order.limit_s,
        order.scratch, 0 if order.disk else order.disk_mib, order.state,
        order.compare,
    )  # fmt: skip
    opener = bare.open if bare.agent else functools.partial(open_sent, bare.open, order.agent)
    with reserve(opener, bare.agent, wish, bare.name, order.progress) as reservation:
        on_reserved(reservation)
        machine = reservation.machine
        if order.wanted is not None:
            RunningKernel(machine.release, machine.version).require(bare.name, *order.wanted)
        facts = HostDescription(
            order.kind, "hardware", machine.release, order.disk or machine.disk, no_disk=machine.no_disk,
            folder=machine.inbox or machine.folder, scope=machine.scope, memory_mib=order.memory_mib,
            captures=machine.folder if machine.inbox else "", agent=bare.agent,
        )  # fmt: skip
        yield ReservedHost(facts, bare, reservation)
