# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU: started into its cgroup, spoken to by QMP over a socket pair, gone when the context ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import IO, cast

from qemu.qmp import Message, QMPClient, QMPError

from harness.agent.host.guest_cpus import guest_cpus
from harness.contract.probe_abi import POOL_GPA
from harness.errors import DeadlineExpired, InfraFault, Unsupported

QMP_SECONDS = 60.0
"""For one QMP command: system_reset waits for the vCPU threads, and these for workers on a slow device."""
KILL_SECONDS = 20.0
_SNAPSHOT = "apf"
_ENTER = 'echo $$ > "$0" && exec "$@"'
_ANSWERED_SECONDS = 5.0
"""For the answer to a command whose asker was cancelled, at the end of a run."""
_NOTICED_SECONDS = 10.0
"""From a broken connection to the exit status, on a busy machine."""


_PLACE = ("socket-id", "die-id", "core-id", "thread-id")
_FAILED = re.compile(r"KVM internal error|KVM: entry failed|error: kvm run failed|KVM: unknown exit")
_UNKNOWN_CPU = re.compile(
    r"unable to find CPU model [^;]+|Property '[^']+-cpu\.[^;]+|can't apply global \S+-cpu\.[^;]+"
)

_SHUTDOWN_WORDS = {
    "guest-reset": "the guest reset itself, or a triple fault did",
    "guest-panic": "the guest panicked",
    "guest-shutdown": "the guest powered itself off",
}


class QemuDied(InfraFault):
    """QEMU ended, or its QMP connection did, while it was needed."""


class _LoggedClient(QMPClient):
    """QMPClient that writes every message with direction and time (seconds, CLOCK_MONOTONIC) to a file."""

    def __init__(self, log: IO[str]) -> None:
        super().__init__("apf")
        self._file = log
        self.shutdown = ""
        """The reason of the event SHUTDOWN (QEMU's qapi/run-state.json: ShutdownCause), "" without one."""
        self.on_reset: Callable[[float], object] = lambda _: None
        """Called at the event RESET with the time at which QEMU sent it (seconds, CLOCK_MONOTONIC): all vCPUs were
        paused, and none was reset yet (runstate.c:qemu_system_reset)."""

    def _note(self, direction: str, message: Message) -> Message:
        line = {"t": round(time.monotonic(), 6), "dir": direction, "message": dict(message)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        return message

    def _cb_outbound(self, msg: Message) -> Message:
        return self._note("out", msg)

    def _cb_inbound(self, msg: Message) -> Message:
        if msg.get("event") == "SHUTDOWN" and isinstance(data := msg.get("data"), dict):
            self.shutdown = str(data.get("reason", ""))
        elif msg.get("event") == "RESET":
            self.on_reset(_sent(msg))
        return self._note("in", msg)


def _sent(event: Message) -> float:
    """QEMU tells the time of day (qapi/qmp-event.c); on a busy machine the message is read long after."""
    match event.get("timestamp"):
        case {"seconds": int(seconds), "microseconds": int(micro)}:
            return time.monotonic() - max(0.0, time.time() - seconds - micro / 1e6)
        case _:
            return time.monotonic()


class Guest:
    """A running QEMU.  Every method raises QemuDied when it is gone."""

    def __init__(self, process: asyncio.subprocess.Process, qmp: _LoggedClient, stderr_path: str) -> None:
        self.process = process
        self.pid = process.pid
        self._qmp = qmp
        self._stderr_path = stderr_path
        self._read = 0  # bytes of it
        self._failed = ""

    def on_reset(self, call: Callable[[float], object]) -> None:
        """Have it called with the time (CLOCK_MONOTONIC) whenever the machine is reset, but for loadvm."""
        self._qmp.on_reset = call

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """One QMP command, with a deadline. :raise InfraFault: refused. :raise DeadlineExpired: not answered.

        Who is cancelled meanwhile goes with the answer only: QEMU executes the command all the same, and a log without
        its answer is taken for damaged.
        """
        asked = asyncio.ensure_future(self._qmp.execute(command, arguments))
        try:
            # Not wait_for, which forgets that it was cancelled if the answer is there already (Python 3.11).
            async with asyncio.timeout(QMP_SECONDS):
                return await asyncio.shield(asked)
        except asyncio.CancelledError:
            await asyncio.wait((asked,), timeout=_ANSWERED_SECONDS)
            raise
        except TimeoutError:
            raise DeadlineExpired(f"QMP {command}: no answer within {QMP_SECONDS:g} s") from None
        except (QMPError, AssertionError) as exc:  # qemu.qmp asserts when its peer has gone
            if await self.reaped(_NOTICED_SECONDS):
                raise QemuDied(self.death()) from exc
            raise InfraFault(f"QMP {command}: {str(exc) or repr(exc)}") from exc
        finally:
            if not asked.cancel() and not asked.cancelled():
                asked.exception()  # who was cancelled does not ask for it

    async def stop(self) -> None:
        await self.execute("stop")

    async def cont(self) -> None:
        await self.execute("cont")

    async def reset(self) -> None:
        await self.execute("system_reset")

    async def nmi(self) -> None:
        """One to each vCPU: KVM_NMI in its thread, if LINT1 of its LAPIC is an NMI (QEMU's hw/i386/kvm/apic.c:
        do_inject_external_nmi)."""
        await self.execute("inject-nmi")

    async def plug(self, vcpu: int) -> int:
        """Plug in the CPU of this index, which is missing; returns its thread.

        A KVM vCPU outlives its CPU: accel/kvm/kvm-all.c:do_kvm_destroy_vcpu keeps its descriptor for the next one.
        The slots in the order of their places are the CPUs in that of their indices (QEMU's hw/i386/x86.c:
        x86_possible_cpu_arch_ids); with a last socket that is not full there are some that no CPU was ever in.
        :raise InfraFault: it is there, or what was plugged in has another index.
        """
        slots = cast("list[dict[str, object]]", await self.execute("query-hotpluggable-cpus"))
        ordered = sorted(
            slots, key=lambda slot: [cast("dict[str, int]", slot["props"]).get(word, 0) for word in _PLACE]
        )
        if vcpu >= len(ordered) or "qom-path" in ordered[vcpu]:
            raise InfraFault(f"QEMU has no free slot for CPU {vcpu}")
        slot = ordered[vcpu]
        properties = cast("dict[str, object]", slot["props"])
        await self.execute("device_add", {"driver": slot["type"], "id": f"vcpu{vcpu}", **properties})
        cpus = cast("list[dict[str, int]]", await self.execute("query-cpus-fast"))
        found = [cpu["thread-id"] for cpu in cpus if cpu["cpu-index"] == vcpu]
        if not found:
            raise InfraFault(f"QEMU has plugged in a CPU, but not that of index {vcpu}")
        return found[0]

    async def savevm(self) -> None:
        """RAM and state of the machine, into the disk of snapshots; it waits for each page that is missing."""
        await self._monitor(f"savevm {_SNAPSHOT}")

    async def loadvm(self) -> None:
        """migration/savevm.c:load_snapshot: a reset, without a RESET event, and then the state of the snapshot."""
        await self._monitor(f"loadvm {_SNAPSHOT}")

    async def _monitor(self, command: str) -> None:
        """A command of the human monitor that says nothing where it succeeds. :raise InfraFault: it said something."""
        said = cast(str, await self.execute("human-monitor-command", {"command-line": command}))
        if said.strip():
            raise InfraFault(f"QEMU's {command} said {said.strip()!r}")

    async def sync(self) -> None:
        """Have the state of every vCPU read (KVM_GET_VCPU_EVENTS among it), to be written back when it runs again.

        ``info registers -a``: accel/kvm/kvm-all.c:kvm_cpu_synchronize_state, for each vCPU.
        """
        await self.execute("human-monitor-command", {"command-line": "info registers -a"})

    async def version(self) -> str:
        answer = cast("dict[str, dict[str, int]]", await self.execute("query-version"))["qemu"]
        return f"{answer['major']}.{answer['minor']}.{answer['micro']}"

    async def vcpu_threads(self) -> tuple[int, ...]:
        """Thread ids in vCPU order."""
        cpus = cast("list[dict[str, int]]", await self.execute("query-cpus-fast"))
        return tuple(cpu["thread-id"] for cpu in sorted(cpus, key=lambda c: c["cpu-index"]))

    async def ram_base(self) -> int:
        """The address in QEMU of guest physical address 0 (all of RAM lies below the first hole)."""
        text = cast(str, await self.execute("human-monitor-command", {"command-line": f"gpa2hva {POOL_GPA:#x}"}))
        match = re.search(r" is 0x([0-9a-f]+)|(0x[0-9a-f]+)\s*$", text)
        if not match:
            raise InfraFault(f"QEMU's gpa2hva said {text.strip()!r}")
        return int(match[1] or match[2], 16) - POOL_GPA

    async def wait_end(self) -> int:
        return await self.process.wait()

    async def reaped(self, seconds: float) -> bool:
        """Wait so long for its exit status: its connections and its memory are gone a moment before that is there.

        :return: it has ended.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), seconds)
        return not self.alive

    @asynccontextmanager
    async def needed(self) -> AsyncIterator[None]:
        """Within, QEMU is needed: an OSError of its memory, its threads or its sockets is QemuDied if it has ended."""
        try:
            yield
        except OSError as exc:
            if not await self.reaped(KILL_SECONDS):
                raise
            raise QemuDied(self.death()) from exc

    def failed_run(self) -> str:
        """What QEMU says when KVM_RUN has ended for good, as KVM_EXIT_INTERNAL_ERROR and KVM_EXIT_FAIL_ENTRY do
        (QEMU's accel/kvm/kvm-all.c:kvm_cpu_exec): it stops the machine, and nobody is told.  "" if it has not."""
        size = os.stat(self._stderr_path).st_size
        if size != self._read:
            self._read = size
            with open(self._stderr_path, encoding="utf-8", errors="replace") as file:
                self._failed = next((line for line in file.read().splitlines() if _FAILED.match(line)), "")
        return self._failed

    def death(self) -> str:
        """Why QEMU ended, in words."""
        with open(self._stderr_path, encoding="utf-8", errors="replace") as file:
            lines = [line for line in file.read().splitlines() if "warning:" not in line]
        why = self._qmp.shutdown
        words = f"{_SHUTDOWN_WORDS.get(why, 'it was told to end')} (QMP event SHUTDOWN, {why})" if why else ""
        last = "; ".join(lines[-3:]) or words or "it said nothing"
        return f"QEMU ended with {self.process.returncode}: {last}"


@asynccontextmanager
async def start_guest(
    make_argv: Callable[[int], list[str]],
    *,
    cgroup: str,
    qmp_log: str,
    stderr_path: str,
    keep_fds: tuple[int, ...] = (),
    release: Callable[[], None] = lambda: None,
) -> AsyncIterator[Guest]:
    """Start QEMU in ``cgroup`` ("": stay in ours) and connect.  ``make_argv`` gets the number of the QMP descriptor.

    On the way out QEMU is killed and reaped; ``release`` lets go what may keep it from dying (reads that are held).

    :raise QemuDied: it ended before it answered. :raise InfraFault: it cannot be started, or does not answer.
    :raise Unsupported: it does not know the CPU that it was asked for.
    """
    ours, theirs = socket.socketpair()
    with open(qmp_log, "w", encoding="utf-8") as log, open(stderr_path, "wb") as stderr, ours:
        with theirs:
            argv = make_argv(theirs.fileno())
            with guest_cpus():
                process = await _spawn(argv, cgroup, (theirs.fileno(), *keep_fds), stderr)
        qmp = _LoggedClient(log)
        guest = Guest(process, qmp, stderr_path)
        try:
            await _connect(guest, qmp, ours)
            yield guest
        finally:
            await _end(guest, qmp, release)


async def _spawn(argv: list[str], cgroup: str, fds: tuple[int, ...], stderr: IO[bytes]) -> asyncio.subprocess.Process:
    """In its group before it is QEMU, so that all its memory is charged there; killed when the agent is gone.

    By a shell and setpriv(1) rather than by Python between fork and exec: then subprocess can use vfork, and our own
    pages are not write-protected, which costs an emulated machine 0.1 s of page faults.
    """
    if shutil.which(argv[0]) is None:
        raise InfraFault(f"{argv[0]}: cannot be run")
    null = asyncio.subprocess.DEVNULL
    enter = ("sh", "-c", _ENTER, f"{cgroup}/cgroup.procs") if cgroup else ()
    try:
        return await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", *enter, *argv,
            stdin=null, stdout=stderr, stderr=stderr, pass_fds=fds, start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as exc:
        raise InfraFault(f"{argv[0]}: {exc}") from exc


async def _connect(guest: Guest, qmp: QMPClient, sock: socket.socket) -> None:
    try:
        await asyncio.wait_for(qmp.connect(sock), QMP_SECONDS)
    except (QMPError, AssertionError, TimeoutError) as exc:
        if await guest.reaped(_NOTICED_SECONDS):
            why = guest.death()
            if unknown := _UNKNOWN_CPU.search(why):
                raise Unsupported(f"the host's QEMU does not know what guest.cpu names: {unknown[0]}") from exc
            raise QemuDied(why) from exc
        late = f"no greeting within {QMP_SECONDS:g} s"
        raise InfraFault(f"QEMU's QMP: {late if isinstance(exc, TimeoutError) else str(exc) or repr(exc)}") from exc


async def _end(guest: Guest, qmp: QMPClient, release: Callable[[], None]) -> None:
    if guest.alive:
        with suppress(ProcessLookupError):
            guest.process.kill()
    with suppress(Exception, asyncio.CancelledError):  # whatever the ends of its tasks were
        await asyncio.wait_for(qmp.disconnect(), 5)
    await guest.reaped(1.0)
    if guest.alive:
        # A vCPU in D state, or kvm waiting for its workers, ends only when the device answers.
        await asyncio.to_thread(release)
        await guest.reaped(KILL_SECONDS)
