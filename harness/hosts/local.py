# SPDX-License-Identifier: GPL-2.0-or-later
"""This very machine as the host: a bare-metal box whose running kernel is the one under test.

Commands run by sudo where we are not root.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
from collections.abc import Iterator

from harness.errors import DeadlineExpired, HostLost, InfraFault, Unsupported
from harness.hosts import HostOpener, HostOrder
from harness.hosts.base import Completed, Host
from harness.hosts.deadline import Deadline
from harness.hosts.reserved_host import BareHost, ReservedOrder, reserved_host
from harness.hosts.stream import MOST_ERRORS, Stream

_CHUNK = 1 << 16
_UNDO_S = 60.0  # how long the agent may take to undo everything once it was told to end
_KILLED_S = 20.0  # ... and what was killed to end: under sudo it is not ours to kill, in the kernel nobody may be


class LocalMachine(BareHost):
    """Commands of this machine.

    :raise Unsupported: it lets us not become root.
    """

    name = "this machine"

    def __init__(self) -> None:
        if os.geteuid() != 0:
            if shutil.which("sudo") is None or run_here(["sudo", "-n", "true"], Deadline.after(10, "sudo")).code != 0:
                raise Unsupported("the local host needs root or sudo without a password")
            self.sudo = ("sudo", "-n")

    def start(self, argv: list[str]) -> Stream:
        return LocalStream(argv)


class LocalStream:
    """A command of this machine, in a session of its own; see stream.Stream.

    :raise InfraFault: it cannot be started.
    """

    def __init__(self, argv: list[str]) -> None:
        self._what = next((word for word in argv if word not in ("sudo", "-n")), argv[0])
        self._err = bytearray()
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as exc:
            raise InfraFault(f"cannot run {argv[0]}: {exc}") from exc
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._in, self._out, self._error = self._process.stdin, self._process.stdout, self._process.stderr
        os.set_blocking(self._in.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        self._selector.register(self._error, selectors.EVENT_READ)
        self._closed = False

    @property
    def what(self) -> str:
        return self._what

    def send(self, data: bytes, deadline: Deadline) -> None:
        view = memoryview(data)
        with selectors.DefaultSelector() as writable:
            try:
                writable.register(self._in, selectors.EVENT_WRITE)
                while view:
                    if not writable.select(self._left(deadline)):
                        continue
                    view = view[os.write(self._in.fileno(), view) :]
            except (OSError, ValueError) as exc:  # ValueError: we have closed it ourselves
                raise HostLost(f"{self._what} has closed its input: {exc}") from exc

    def end_input(self) -> None:
        with contextlib.suppress(OSError):
            self._in.close()

    def read(self, deadline: Deadline) -> bytes:
        while self._selector.get_map():
            for key, _ in self._selector.select(self._left(deadline)):
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    self._selector.unregister(key.fileobj)
                elif key.fileobj is self._error:
                    self._err += chunk[: max(0, MOST_ERRORS - len(self._err))]
                else:
                    return chunk
        return b""

    def code(self, deadline: Deadline) -> int:
        while True:
            try:
                return self._process.wait(max(0.001, self._left(deadline)))
            except subprocess.TimeoutExpired:
                continue

    def _left(self, deadline: Deadline) -> float:
        if deadline.expired:
            self.kill()
            raise DeadlineExpired(f"{deadline.what}: {self._what} did not end in time")
        return deadline.remaining(0.5)

    def errors(self) -> bytes:
        return bytes(self._err)

    def kill(self) -> None:
        """Its input is closed first, which reaches the agent also where a signal may not: under sudo."""
        self.end_input()
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.end_input()
        self._selector.close()
        if self._process.poll() is None:
            self.kill()
        for stream in (self._out, self._error):
            stream.close()
        try:
            self._process.wait(_UNDO_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            try:
                self._process.wait(_KILLED_S)
            except subprocess.TimeoutExpired:
                self._err += f"\n{self._what} still runs {_KILLED_S:g} s after SIGKILL, and is left".encode()


def run_here(argv: list[str], deadline: Deadline) -> Completed:
    """Run a command of this machine to its end.

    :raise DeadlineExpired: it did not end in time.
    :raise InfraFault: it cannot be started.
    """
    with contextlib.closing(LocalStream(argv)) as stream:
        out = bytearray()
        while chunk := stream.read(deadline):
            out += chunk
        return Completed(stream.code(deadline), bytes(out), stream.errors())


def prepare(order: HostOrder) -> HostOpener:
    """This machine needs no preparation.

    :raise Unsupported: it cannot be a host.
    :raise InfraFault: it runs another kernel than the one that is wanted.
    """
    if not os.access("/dev/kvm", os.F_OK):
        raise Unsupported("this machine has no /dev/kvm, so it cannot be the host; the virtual host needs none")
    machine = LocalMachine()
    running = machine.kernel()
    if order.wanted is not None:
        running.require(machine.name, *order.wanted)

    @contextlib.contextmanager
    def start() -> Iterator[Host]:
        reserved = ReservedOrder(
            "local", order.payload.agent, order.progress, order.disk, wait_s=order.wait_s, wanted=order.wanted
        )
        with reserved_host(machine, reserved) as host:
            yield host

    return HostOpener(start, {"local release": running.release, "local kernel": running.version})
