# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual host: a VM booted from the kernel under test, with nested KVM or with SVM emulated by TCG."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qemu.qmp import QMPClient, QMPError

from harness.contract.host_stalls import Stall
from harness.errors import DeadlineExpired, HostLost, InfraFault, KernelFault
from harness.hosts.base import HostDescription, trouble_error
from harness.hosts.deadline import Deadline
from harness.hosts.ssh_link import Link
from harness.hosts.stream import Stream, StreamHost
from harness.hosts.virtual.console_file import ConsoleWatch
from harness.hosts.virtual.run_delay import RunDelays
from harness.hosts.virtual.vm import HostMachine, QemuProcess, start_qemu
from harness.progress import Progress, silent

READY_MARK = b"apf-host: READY "
"""Printed on the console by guest-images/host/init when the SSH server listens."""

BOOT_S = 120.0
"""About 4 s alone on a machine.  Time in which the machine had no processor for QEMU does not count ..."""
_BOOT_AT_MOST_S = 900.0
"""... but for ever is too long."""

DISK = "/dev/vdb"
CMDLINE = (
    "console=ttyS0 panic=-1 oops=panic loglevel=5 no_timer_check tsc=reliable mitigations=off rcupdate.rcu_expedited=1"
    " slab_nomerge"
)
"""loglevel 5: WARN() is a KERN_WARNING, and must be seen.  no_timer_check: on a busy machine an emulated host gets too
few timer interrupts in the ticks that arch/x86/kernel/apic/io_apic.c:timer_irq_works counts, and panics ("IO-APIC +
timer doesn't work!"); KVM guests switch the check off for the same reason (arch/x86/kernel/kvm.c:kvm_guest_init).
slab_nomerge: KVM's works have a slab of their own, so that a leak of one can be seen (left.json).
The rest is speed.  tsc: QEMU's vCPUs all read the machine's own TSC, but its processor does not say so, and then each
time stamp of the trace is a read of the HPET, an exit to QEMU under its big lock (tsc.c:unsynchronized_tsc).
mitigations: each return of a function of the emulated kernel would go through retbleed's thunk.  rcu_expedited: a
filter of the trace, a move to another cgroup and swapoff(2) each wait for a grace period or more."""


@dataclass(frozen=True, slots=True)
class Keys:
    """How to get in: user name, our private key's file, and the host's public key as in known_hosts."""

    client_key: Path
    host_key: str
    user: str = "root"


@dataclass(frozen=True, slots=True)
class SshAccess:
    """How anybody on this machine can get in while the host runs."""

    port: int
    keys: Keys

    def known_hosts(self) -> str:
        """The line for an SSH client's file of known hosts."""
        return f"[127.0.0.1]:{self.port} {self.keys.host_key}\n"

    def command(self, known_hosts: Path) -> list[str]:
        """The command line of OpenSSH's client; ``known_hosts``: where that line is."""
        return [
            "ssh", "-p", str(self.port), "-i", str(self.keys.client_key), "-o", "IdentitiesOnly=yes",
            "-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes",
            f"{self.keys.user}@127.0.0.1",
        ]  # fmt: skip


class VirtualHost(StreamHost):
    """See base.Host; made by start_virtual_host()."""

    def __init__(
        self, facts: HostDescription, vm: QemuProcess, watch: ConsoleWatch, link: Link, access: SshAccess
    ) -> None:  # fmt: skip
        self.access = access
        self._facts = facts
        self._vm = vm
        self._watch = watch
        self._link = link
        self._tainted = ""
        # What runs on a host with a finding on its console may end first, within its own deadline: its evidence says
        # how it came to that.  A host that panicked is gone in a moment, and guard() finds out why.
        link.check = vm.check

    @property
    def facts(self) -> HostDescription:
        return self._facts

    @property
    def tainted(self) -> str:
        return self._tainted

    @property
    def qemu_pid(self) -> int:
        """For tests that kill it."""
        return self._vm.pid

    def taint(self, reason: str) -> None:
        self._tainted = self._tainted or reason

    def reset(self) -> None:
        """As by its button.  :raise HostLost: QEMU does not answer."""
        monitor(self._vm, "system_reset")

    def check_machine(self) -> None:
        """:raise HostLost: QEMU has ended."""
        self._vm.check()

    def check(self) -> None:
        check(self._vm, self._watch)

    def interact(self, stdin: int, stdout: int) -> int:
        """A shell for a person; see Link.interact().

        :raise KernelFault: the kernel under test died meanwhile.
        """
        with self.guard():
            return self._link.interact(stdin, stdout)

    def open(self, argv: list[str]) -> Stream:
        return self._link.open_stream(argv)

    def console_mark(self) -> int:
        return self._watch.size()

    def console(self, since: int = 0) -> bytes:
        return self._watch.text(since)

    def stalls(self, since: int = 0) -> tuple[Stall, ...]:
        return self._watch.stalls(since)

    def guest_stalls(self, console: bytes) -> tuple[Stall, ...]:
        return self._watch.guest_stalls(console)

    def slowness(self) -> float:
        return self._watch.slowness()

    def diagnose(self) -> str:
        return f"last lines of the host's console:\n{self._watch.tail()}\nits processors:\n{processors(self._vm)}"

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """When the link goes, the console may say a moment later that it was a panic: that is the better reason."""
        try:
            yield
        except (HostLost, DeadlineExpired):
            patience = Deadline.after(3.0, "last words")
            while not patience.expired:
                found = self._watch.fault()
                if found is not None:
                    raise trouble_error(found, self._watch.context(found)) from None
                time.sleep(0.1)
            self._vm.check()
            raise


_PLACE = re.compile(r"^CPU#|^RIP=|^EIP=|^CS =|^CR0=|^RSP|^EFER")
DID_NOT_BOOT = "the virtual host did not boot"
"""Begins the message of what goes wrong before a host is up: a bisection skips such a kernel."""


def check(vm: QemuProcess, watch: ConsoleWatch) -> None:
    """:raise KernelFault: the console shows a finding.  :raise HostLost: QEMU has ended."""
    found = watch.fault()
    if found is not None:
        raise trouble_error(found, watch.context(found))
    vm.check()


class _WrongClock(InfraFault):
    """The host's kernel has calibrated its clock wrongly."""


_DEVIATES = re.compile(rb"tsc: PIT calibration deviates from [^\r\n]*[\r\n]")
_CLOCKS = 5


@contextlib.contextmanager
def start_virtual_host(
    machine: HostMachine, keys: Keys, release: str, console: Path, progress: Progress = silent
) -> Iterator[VirtualHost]:
    """Boot a virtual host and connect to it.

    :param console: file that receives the host's serial console.
    :raise KernelFault: the kernel under test died while booting.
    :raise HostLost: QEMU died, or the host cannot be reached.
    :raise DeadlineExpired: it did not come up in time.
    :raise InfraFault: its clock was calibrated wrongly, five times (harness/hosts/virtual/machine_tsc.py).
    """
    with contextlib.ExitStack() as stack:
        for left in reversed(range(_CLOCKS)):
            try:
                host = stack.enter_context(_boot(machine, keys, release, console, progress))
                break
            except _WrongClock as wrong:  # nothing was performed on it
                if not left:
                    raise
                progress(f"boot {release} again: {wrong.message}")
        yield host


@contextlib.contextmanager
def _boot(machine: HostMachine, keys: Keys, release: str, console: Path, progress: Progress) -> Iterator[VirtualHost]:
    """As start_virtual_host().  :raise _WrongClock: the console says so; only of an emulated host."""
    console.parent.mkdir(parents=True, exist_ok=True)
    console.write_bytes(b"")
    with start_qemu(machine, console) as vm:
        watch = ConsoleWatch(console, RunDelays(vm.pid))
        deadline = Deadline.after(_BOOT_AT_MOST_S, "boot of the virtual host")
        began = time.monotonic()
        while READY_MARK not in watch.text():
            wrong = _DEVIATES.search(watch.text()) if machine.accel == "tcg" else None
            if wrong is not None:
                message = wrong[0].decode(errors="replace").strip()
                raise _WrongClock(f"{DID_NOT_BOOT}: its clock is wrong ({message})")
            try:
                check(vm, watch)
            except KernelFault as fault:
                raise KernelFault(f"{DID_NOT_BOOT}: {fault.message}", hint=fault.hint) from None
            passed, held_back = time.monotonic() - began, vm.held_back_s()
            if deadline.expired or passed - held_back > BOOT_S:
                busy = f"; for {held_back:.0f} s of these this machine had no processor for it"
                raise DeadlineExpired(f"{DID_NOT_BOOT} in {passed:.0f} s{busy}", hint=watch.tail())
            progress(f"boot {release} ({machine.accel}): {passed:.0f} s")
            time.sleep(0.1)
        port = forwarded_port(vm)
        with Link.open(
            "127.0.0.1", port, keys.user,
            client_key=keys.client_key, host_key=keys.host_key, deadline=deadline, check=lambda: check(vm, watch),
        ) as link:  # fmt: skip
            progress(f"boot {release} ({machine.accel}): up after {time.monotonic() - began:.1f} s")
            facts = HostDescription("virtual", machine.accel, release, DISK)
            yield VirtualHost(facts, vm, watch, link, SshAccess(port, keys))


def forwarded_port(vm: QemuProcess) -> int:
    """The port of 127.0.0.1 that QEMU chose for the host's SSH server.

    :raise HostLost: QEMU does not answer, or forwards nothing.
    """
    return parse_usernet(monitor(vm, "info usernet", greeted=False))


def processors(vm: QemuProcess) -> str:
    """Where the host's processors are, twice, a second apart: a host that answers nothing still has registers."""
    try:
        samples = []
        for _ in range(2):
            text = monitor(vm, "info registers -a")
            samples.append("\n".join(line for line in text.splitlines() if _PLACE.search(line)))
            time.sleep(1)
        return "\n-- a second later\n".join(samples)
    except HostLost as exc:
        return exc.message


def monitor(vm: QemuProcess, command: str, *, greeted: bool = True) -> str:
    """The answer of QEMU's human monitor.  ``greeted``: this is not the first command on the socket.

    :raise HostLost: QEMU does not answer.
    """

    async def ask() -> str:
        # What goes wrong is raised; without this asyncio prints the traceback of a socket that was closed besides, when
        # the task of the client that has read it is forgotten.
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _told: None)
        client = QMPClient("host")
        client.await_greeting = client.negotiate = not greeted
        await asyncio.wait_for(client.connect(vm.qmp.dup()), 20)
        try:
            answer = await asyncio.wait_for(client.execute("human-monitor-command", {"command-line": command}), 20)
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.disconnect(), 5)
        return str(answer)

    try:
        return asyncio.run(ask())
    except (QMPError, OSError, TimeoutError, AssertionError) as exc:  # qemu.qmp asserts when its peer has gone
        vm.check()
        raise HostLost(f"QMP of the virtual host: {exc!r}") from exc


def parse_usernet(text: str) -> int:
    """The port in a line such as ``TCP[HOST_FORWARD]  12   127.0.0.1 40123   10.0.2.15    22   0   0``.

    :raise HostLost: there is no such line.
    """
    match = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", text)
    if match is None:
        raise HostLost(f"QEMU forwards no port: {text.strip()!r}")
    return int(match.group(1))
