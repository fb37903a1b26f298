# SPDX-License-Identifier: GPL-2.0-or-later
"""This very machine as the host: a bare-metal box whose running kernel is the one under test.

Commands run by sudo where we are not root.  The agent's journal undoes what it changed, also when we are killed: it
notices that its standard input was closed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from harness.contract.kernel_trouble import find_trouble
from harness.errors import DeadlineExpired, HostLost, InfraFault, Unsupported
from harness.hosts import HostOpener, HostOrder
from harness.hosts.base import Completed, Host, HostDescription, trouble_error
from harness.hosts.deadline import Deadline
from harness.hosts.kernel_log import READ_ALL, KmsgRecord, next_sequence, parse_kmsg, text_since
from harness.hosts.stream import Stream, StreamHost

_CHUNK = 1 << 16
_UNDO_S = 60.0  # how long the agent may take to undo everything once it was told to end
_LOG_S = 20.0


class LocalHost(StreamHost):
    """See base.Host; made by start_local_host().

    :param sudo: what to put before a command so that it runs as root; empty when we are root.
    :raise InfraFault: the kernel log cannot be read, so that trouble of the kernel would not be noticed.
    """

    def __init__(self, facts: HostDescription, sudo: list[str]) -> None:
        self._facts = facts
        self._sudo = sudo
        self._tainted = ""
        self._log_start = self.console_mark()

    @property
    def facts(self) -> HostDescription:
        return self._facts

    @property
    def tainted(self) -> str:
        return self._tainted

    def taint(self, reason: str) -> None:
        self._tainted = self._tainted or reason

    def open(self, argv: list[str]) -> Stream:
        return LocalStream([*self._sudo, *argv])

    def _records(self) -> tuple[KmsgRecord, ...]:
        done = self.run([sys.executable, "-I", "-c", READ_ALL], deadline_s=_LOG_S)
        if done.code != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise InfraFault(
                f"the kernel log of this machine cannot be read: {said[-1] if said else 'no reason given'}"
            )
        return parse_kmsg(done.stdout)

    def console_mark(self) -> int:
        return next_sequence(self._records())

    def console(self, since: int = 0) -> bytes:
        return text_since(self._records(), since)

    def check(self) -> None:
        found = find_trouble(self.console(self._log_start))
        if found is not None:
            raise trouble_error(found)

    def diagnose(self) -> str:
        return "the host is this machine: see dmesg"


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
                    self._err += chunk
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
            self._process.wait()


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
    """This machine needs no preparation."""

    @contextlib.contextmanager
    def start() -> Iterator[Host]:
        with start_local_host(order.disk) as host:
            yield host

    return HostOpener(start, {"local release": platform.release()})


@contextlib.contextmanager
def start_local_host(disk: str = "", disk_mib: int = 4096) -> Iterator[LocalHost]:
    """This machine as a host.

    :param disk: block device that may be overwritten; empty: a loop device over a sparse file.
    :raise Unsupported: this machine lets us not become root, or has no usable KVM.
    """
    if not os.access("/dev/kvm", os.F_OK):
        raise Unsupported("this machine has no /dev/kvm, so it cannot be the host; the virtual host needs none")
    sudo: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None or run_here(["sudo", "-n", "true"], Deadline.after(10, "sudo")).code != 0:
            raise Unsupported("the local host needs root or sudo without a password")
        sudo = ["sudo", "-n"]
    with contextlib.ExitStack() as stack:
        if not disk:
            disk = stack.enter_context(_loop_device(sudo, disk_mib))
        yield LocalHost(HostDescription("local", "hardware", platform.release(), disk), sudo)


@contextlib.contextmanager
def _loop_device(sudo: list[str], size_mib: int) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(prefix="apf-disk-", dir="/var/tmp") as file:
        file.truncate(size_mib << 20)
        made = run_here([*sudo, "losetup", "--find", "--show", file.name], Deadline.after(20, "losetup"))
        if made.code != 0:
            raise Unsupported(f"no loop device for swap: {made.stderr.decode(errors='replace').strip()}")
        device = made.stdout.decode().strip()
        try:
            yield device
        finally:
            run_here([*sudo, "losetup", "--detach", device], Deadline.after(20, "losetup"))
