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
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.contract.kernel_trouble import find_trouble
from harness.errors import DeadlineExpired, HostLost, InfraFault, Unsupported
from harness.hosts import HostOpener, HostOrder
from harness.hosts.base import Completed, Conversation, Host, HostDescription, trouble_error
from harness.hosts.deadline import Deadline

_UNDO_S = 60.0  # how long the agent may take to undo everything once it was told to end


class LocalHost:
    """See base.Host; made by start_local_host()."""

    def __init__(self, facts: HostDescription, sudo: list[str]) -> None:
        self._facts = facts
        self._sudo = sudo
        self._tainted = ""
        self._log_start = len(self._kernel_log())

    @property
    def facts(self) -> HostDescription:
        return self._facts

    @property
    def tainted(self) -> str:
        return self._tainted

    def taint(self, reason: str) -> None:
        self._tainted = self._tainted or reason

    def put(self, source: Path, target: str, *, deadline_s: float) -> None:
        done = self.run(["cp", str(source.absolute()), target], deadline_s=deadline_s)
        if done.code != 0:
            raise InfraFault(f"cannot write {target}: {done.stderr.decode(errors='replace').strip()}")

    def run(
        self, argv: list[str], *, deadline_s: float, on_line: Callable[[str], None] | None = None, root: bool = True
    ) -> Completed:
        return run_here([*self._sudo, *argv] if root else argv, Deadline.after(deadline_s, argv[0]), on_line)

    def converse(self, argv: list[str]) -> Conversation:
        return LocalTalk([*self._sudo, *argv])

    def fetch(self, source: str, target: Path, *, deadline_s: float, remove: bool = False) -> None:
        target.mkdir(parents=True, exist_ok=True)
        done = self.run(["cp", "-r", f"{source}/.", str(target.absolute())], deadline_s=deadline_s)
        if done.code == 0 and self._sudo:
            self.run(["chown", "-R", f"{os.getuid()}:{os.getgid()}", str(target.absolute())], deadline_s=deadline_s)
        if done.code != 0:
            raise InfraFault(f"cannot fetch {source}: {done.stderr.decode(errors='replace').strip()}")
        if remove:
            self.run(["rm", "-rf", source], deadline_s=deadline_s)

    def _kernel_log(self) -> bytes:
        return run_here([*self._sudo, "dmesg"], Deadline.after(20, "dmesg"), None).stdout

    def console_mark(self) -> int:
        return len(self._kernel_log())

    def console(self, since: int = 0) -> bytes:
        return self._kernel_log()[since:]

    def check(self) -> None:
        found = find_trouble(b"\n" + self.console(self._log_start))
        if found is not None:
            raise trouble_error(found)

    def diagnose(self) -> str:
        return "the host is this machine: see dmesg"


class LocalTalk:
    """A command of this machine that answers lines; see base.Conversation."""

    def __init__(self, argv: list[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
            )
        except OSError as exc:
            self._errors.close()
            raise InfraFault(f"cannot run {argv[0]}: {exc}") from exc
        self._what = argv[0]
        self._out = bytearray()

    def ask(self, line: str, *, deadline_s: float, on_line: Callable[[str], bool]) -> None:
        deadline = Deadline.after(deadline_s, self._what)
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError as exc:
            raise HostLost(f"{self._what} has ended: {exc}", hint=self._last_words()) from exc
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                while (end := self._out.find(b"\n")) >= 0:
                    text = self._out[:end].decode(errors="replace")
                    del self._out[: end + 1]
                    if on_line(text):
                        return
                if deadline.expired:
                    self.close()
                    raise DeadlineExpired(f"{self._what} did not answer in time")
                if selector.select(deadline.remaining(0.5)):
                    chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                    if not chunk:
                        raise HostLost(f"{self._what} ended in the middle of its answer", hint=self._last_words())
                    self._out += chunk

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-2000:]

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        _end(self._process)
        self._errors.close()


def run_here(argv: list[str], deadline: Deadline, on_line: Callable[[str], None] | None) -> Completed:
    """Run a command of this machine in a session of its own; its standard input stays open until it ends.

    :raise DeadlineExpired: it did not end in time.
    :raise InfraFault: it cannot be started.
    """
    out, err = bytearray(), bytearray()
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as exc:
        raise InfraFault(f"cannot run {argv[0]}: {exc}") from exc
    assert process.stdin and process.stdout and process.stderr
    with process, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, out)
        selector.register(process.stderr, selectors.EVENT_READ, err)
        try:
            while selector.get_map():
                if deadline.expired:
                    raise DeadlineExpired(f"{deadline.what} did not end in time")
                for key, _ in selector.select(deadline.remaining(0.5)):
                    chunk = os.read(key.fd, 1 << 16)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    key.data.extend(chunk)
                while on_line is not None and (end := out.find(b"\n")) >= 0:
                    line = out[:end].decode(errors="replace")
                    del out[: end + 1]
                    on_line(line)
            process.wait(max(1.0, deadline.remaining()))
        except BaseException:
            process.stdin.close()  # the agent's sign to undo everything
            _end(process)
            raise
    return Completed(process.returncode, bytes(out), bytes(err))


def _end(process: subprocess.Popen[bytes]) -> None:
    # Under sudo a signal would have to be sent as root; the closed input reaches the agent in either case.
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_UNDO_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


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
        if shutil.which("sudo") is None or run_here(["sudo", "-n", "true"], Deadline.after(10, "sudo"), None).code != 0:
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
        made = run_here([*sudo, "losetup", "--find", "--show", file.name], Deadline.after(20, "losetup"), None)
        if made.code != 0:
            raise Unsupported(f"no loop device for swap: {made.stderr.decode(errors='replace').strip()}")
        device = made.stdout.decode().strip()
        try:
            yield device
        finally:
            run_here([*sudo, "losetup", "--detach", device], Deadline.after(20, "losetup"), None)
