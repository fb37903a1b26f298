# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection to a machine of the lab, through the machines on the way to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from harness.errors import HostLost
from harness.hosts.deadline import Deadline
from harness.hosts.lab_file import LabHost
from harness.hosts.reserved_host import BareHost
from harness.hosts.ssh_link import Link
from harness.hosts.stream import Lines, Stream

_CONNECT_S = 60.0
_ASK_S = 60.0


class SshMachine(BareHost):
    """A machine that was connected to; made by connect_way()."""

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

    def drop(self) -> None:
        """Close the connection: the machine at its other end is no more.  Never raises."""
        self._link.close()

    def told(self, argv: list[str]) -> str:
        """The first line of what a command says that we run as the user that we are there; empty: nothing.

        :raise HostLost, DeadlineExpired: see StreamHost.run.
        """
        with contextlib.closing(self.start(argv)) as stream:
            return Lines(stream).next(Deadline.after(_ASK_S, argv[0])) or ""


@contextlib.contextmanager
def connect_way(chain: tuple[LabHost, ...], seconds: float | None = None) -> Iterator[SshMachine]:
    """The last of these machines, each reached through the one before.

    :raise HostLost: a host key is another than the file says, or our key was refused.
    :raise DeadlineExpired: no answer.
    """
    deadline = Deadline.after(_CONNECT_S if seconds is None else seconds, f"connecting to {chain[-1].name}")
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


def _nothing() -> None:
    pass
