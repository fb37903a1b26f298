# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of the lab, reached by SSH as its entry in the file of lab machines says (lab_file.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from harness.errors import UsageError
from harness.hosts import HostOpener, HostOrder
from harness.hosts.base import Host
from harness.hosts.kexec_boot import booted_by_kexec, settle
from harness.hosts.lab_file import LabHost, find_lab_host
from harness.hosts.reservation import Reservation
from harness.hosts.reserved_host import ReservedOrder, reserved_host
from harness.hosts.ssh_machine import SshMachine, connect_way


def connect(lab: Path, name: str) -> AbstractContextManager[SshMachine]:
    """The machine with this name, through the machines on the way to it.

    :raise UsageError: the file of lab machines is wrong, or has no such machine.
    :raise HostLost, DeadlineExpired: see connect_way().
    """
    return connect_way(_fixed_way(lab, name))


def _fixed_way(lab: Path, name: str) -> tuple[LabHost, ...]:
    """The machine and those on the way, each at the address of the file.  :raise UsageError: one has none."""
    chain = find_lab_host(lab, name)
    for entry in chain:
        if not entry.address:
            raise UsageError(
                f"{lab}: {entry.name} has no address: it is a place of labgrid, --host labgrid:{entry.name}"
            )
    return chain


def prepare(order: HostOrder) -> HostOpener:
    """Ask the machine what it runs: nothing is changed there yet.

    :raise ApfError: see connect(); or it does not run the kernel that is wanted, and may not boot it.
    """
    chain = _fixed_way(order.lab, order.name)
    return prepare_way(order, lambda: contextlib.nullcontext(chain))


def prepare_way(order: HostOrder, way: Callable[[], AbstractContextManager[tuple[LabHost, ...]]]) -> HostOpener:
    """The same for a machine that has to be found first.

    :param way: gives it, and the machines on the way to it, for as long as it is used.
    """
    with way() as chain:
        settle(chain, order)
        with connect_way(chain) as machine:
            entry, running = chain[-1], machine.kernel()
    by_kexec = False
    if order.wanted is not None:
        by_kexec = entry.kexec and not running.is_build(order.wanted[1])
        if not by_kexec:
            running.require(entry.name, *order.wanted)

    @contextlib.contextmanager
    def start() -> Iterator[Host]:
        with contextlib.ExitStack() as stack:
            chain = stack.enter_context(way())
            if by_kexec:
                chain = stack.enter_context(booted_by_kexec(chain, order))
            with _reserved(chain, order) as host:
                yield host

    facts = {f"{entry.name} release": running.release, f"{entry.name} kernel": running.version}
    if by_kexec and order.kernel is not None:
        facts[f"{entry.name} boots"] = f"{order.kernel.id} by kexec"
    return HostOpener(start, facts)


@contextlib.contextmanager
def _reserved(chain: tuple[LabHost, ...], order: HostOrder) -> Iterator[Host]:
    """The last of these machines for us alone."""
    entry = chain[-1]
    with connect_way(chain) as machine:

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


def _nothing() -> None:
    pass
