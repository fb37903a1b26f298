# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of the lab, reached by SSH as its entry in the file of lab machines says (lab_file.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from harness.errors import HostLost, UsageError
from harness.hosts import HostOpener, HostOrder
from harness.hosts.base import Host
from harness.hosts.deadline import Deadline
from harness.hosts.lab_file import LabHost, find_lab_host
from harness.hosts.reservation import Reservation
from harness.hosts.reserved_host import BareHost, ReservedOrder, reserved_host
from harness.hosts.ssh_link import Link
from harness.hosts.stream import Stream

_CONNECT_S = 60.0


class SshMachine(BareHost):
    """A machine that was connected to; made by connect()."""

    def __init__(self, entry: LabHost, link: Link) -> None:
        self.name = entry.name
        self.sudo = () if entry.user == "root" else ("sudo", "-n")
        self.agent = ("/usr/bin/python3", "-I", entry.agent) if entry.agent else ()
        self._link = link

    def start(self, argv: list[str]) -> Stream:
        return self._link.open_stream(argv)

    def watch(self, check: Callable[[], None]) -> None:
        """Call ``check`` while anything is waited for; it may raise a better reason than silence."""
        self._link.check = check


def connect(lab: Path, name: str) -> AbstractContextManager[SshMachine]:
    """The machine with this name, through the machines on the way to it.

    :raise UsageError: the file of lab machines is wrong, or has no such machine.
    :raise HostLost: a host key is another than the file says, or our key was refused.
    :raise DeadlineExpired: no answer.
    """
    return connect_way(_fixed_way(lab, name))


@contextlib.contextmanager
def connect_way(chain: tuple[LabHost, ...]) -> Iterator[SshMachine]:
    """The last of these machines, each reached through the one before; see connect()."""
    deadline = Deadline.after(_CONNECT_S, f"connecting to {chain[-1].name}")
    with contextlib.ExitStack() as stack:
        link: Link | None = None
        for entry in chain:
            try:
                link = stack.enter_context(
                    Link.open(
                        entry.address, entry.port, entry.user, client_key=entry.key, host_key=entry.host_key,
                        deadline=deadline, check=_nothing, through=link,
                    )
                )  # fmt: skip
            except HostLost as exc:
                raise HostLost(f"{entry.name}: {exc.message}", hint=exc.hint) from exc
        assert link is not None
        yield SshMachine(chain[-1], link)


def _fixed_way(lab: Path, name: str) -> tuple[LabHost, ...]:
    """The machine and those on the way, each at the address of the file.  :raise UsageError: one has none."""
    chain = find_lab_host(lab, name)
    for entry in chain:
        if not entry.address:
            raise UsageError(
                f"{lab}: {entry.name} has no address: it is a place of labgrid, --host labgrid:{entry.name}"
            )
    return chain


def _nothing() -> None:
    pass


def prepare(order: HostOrder) -> HostOpener:
    """Ask the machine what it runs: nothing is changed there yet.

    :raise ApfError: see connect(); or it does not run the kernel that is wanted.
    """
    chain = _fixed_way(order.lab, order.name)
    return prepare_way(order, lambda: contextlib.nullcontext(chain))


def prepare_way(order: HostOrder, way: Callable[[], AbstractContextManager[tuple[LabHost, ...]]]) -> HostOpener:
    """The same for a machine that has to be found first.

    :param way: gives it, and the machines on the way to it, for as long as it is used.
    """
    with way() as chain, connect_way(chain) as machine:
        entry, running = chain[-1], machine.kernel()
    if order.wanted is not None:
        running.require(entry.name, *order.wanted)

    @contextlib.contextmanager
    def start() -> Iterator[Host]:
        with way() as chain, connect_way(chain) as machine:

            def on_reserved(reservation: Reservation) -> None:
                machine.watch(reservation.check)

            reserved = ReservedOrder(
                "ssh", order.payload.agent, order.progress, order.disk or entry.disk, entry.disk_mib, entry.memory_mib,
                entry.scratch, order.wait_s, entry.minutes * 60.0, order.wanted,
            )  # fmt: skip
            try:
                with reserved_host(machine, reserved, on_reserved) as host:
                    yield host
            finally:
                machine.watch(_nothing)

    return HostOpener(
        start, {f"{entry.name} release": running.release, f"{entry.name} kernel": running.version}
    )  # fmt: skip
