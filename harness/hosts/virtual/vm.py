# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU process of a virtual host: its command line, its birth and its death.

QEMU must never outlive us.  Two things see to that: ``setpriv --pdeathsig KILL`` (prctl(2) PR_SET_PDEATHSIG; it
survives execve of a plain binary) and a shell that, after it is set, looks whether its parent is still the one that
started it, which closes the gap between fork and prctl.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.artifacts.images.packaged_qemu import machine_qemu
from harness.contract.capture import EMULATED, EMULATOR
from harness.errors import HostLost, InfraFault
from harness.hosts.virtual.machine_tsc import tsc_khz
from harness.hosts.virtual.run_delay import run_delays

_STILL_MY_CHILD = '[ "$PPID" = "$0" ] && exec "$@"'


@dataclass(frozen=True, slots=True)
class HostMachine:
    """What a virtual host is made of; memory in MiB, disk (for swap, starts empty) in MiB.

    ``cpus``: so many that guests may run on; an emulated host has one more (harness/agent/host/guest_cpus.py).
    ``reboots``: a reset boots it again; otherwise it ends QEMU.  ``qemu``: the program; None: the machine's own.
    ``emulator``: the version of that, of which an emulated host's command line tells; empty: it does not.
    ``plugin``: of an emulated host's QEMU (harness/artifacts/images/qemu_plugin.py).
    """

    accel: str  # "kvm" or "tcg"
    kernel: Path
    initrd: Path | None
    root: Path
    cmdline: str
    cpus: int = 2
    memory_mib: int = 2048
    disk_mib: int = 4096
    reboots: bool = False
    qemu: Path | None = None
    emulator: str = ""
    plugin: Path | None = None


EMULATED_CPU = "EPYC,+svm,+npt,-xsave,-avx,-avx2,-fma,-f16c"
"""Without XSAVE, and what needs it: before 8.2 QEMU does not look whether XSETBV of an SVM guest is intercepted, so KVM
does not learn the guest's XCR0 and answers its CPUID leaf 0xD for another.  Linux then warns (arch/x86/kernel/fpu/
xstate.c:paranoid_xstate_size_valid) and does without XSAVE, which on 7.3 ends in a panic."""


def host_command(
    qemu: str, machine: HostMachine, *, disk: str, console: Path, qmp_fd: int, tsc_khz: int = 0
) -> list[str]:
    """The command line.  Under TCG the processor has emulated SVM with nested paging; under KVM it is the real one.

    :param tsc_khz: of the machine, of which an emulated host's kernel is told (5.11 and later hear it; 0: it is not).
    """
    cpu, cmdline = ["-accel", "kvm", "-cpu", "host"], machine.cmdline
    if machine.accel == "tcg":
        cpu, cmdline = ["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU], f"{cmdline} {EMULATED}"
        cpu += ["-plugin", f"file={machine.plugin}"] if machine.plugin is not None else []
        cmdline += f" {EMULATOR}{machine.emulator}" if machine.emulator else ""
        cmdline += f" tsc_early_khz={tsc_khz}" if tsc_khz else ""
    initrd = ["-initrd", str(machine.initrd)] if machine.initrd is not None else []
    return [
        qemu,
        "-name", "apf-host,debug-threads=on",
        "-nodefaults", "-no-user-config",
        "-display", "none",
        *([] if machine.reboots else ["-no-reboot"]),
        "-M", "q35",
        *cpu,
        "-smp", str(machine.cpus + (machine.accel == "tcg")),
        "-m", str(machine.memory_mib),
        "-kernel", str(machine.kernel),
        *initrd,
        "-append", cmdline,
        "-drive", f"file={machine.root},id=root,if=none,format=raw,readonly=on",
        "-device", "virtio-blk-pci,drive=root,serial=apf-root",
        "-drive", f"file={disk},id=swap,if=none,format=raw,cache=unsafe,discard=unmap",
        "-device", "virtio-blk-pci,drive=swap,serial=apf-swap",
        "-netdev", "user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22",
        "-device", "virtio-net-pci,netdev=n0,romfile=",
        "-device", "virtio-rng-pci",
        "-chardev", f"file,id=console,path={console}",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=qmp,fd={qmp_fd}",
        "-mon", "chardev=qmp,mode=control",
    ]  # fmt: skip


class QemuProcess:
    """A running QEMU with our end of its QMP socket; made by start_qemu()."""

    def __init__(self, popen: subprocess.Popen[bytes], qmp: socket.socket, stderr: IO[bytes]) -> None:
        self._popen = popen
        self.qmp = qmp
        self._stderr = stderr

    @property
    def pid(self) -> int:
        return self._popen.pid

    def held_back_s(self) -> float:
        """How long the thread of QEMU that waited longest was ready to run and had no processor, in seconds; 0 where
        the kernel does not count it (CONFIG_SCHED_INFO) or QEMU has ended."""
        return max(run_delays(self.pid).values(), default=0.0)

    def check(self) -> None:
        """:raise HostLost: QEMU has ended."""
        code = self._popen.poll()
        if code is None:
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        raise HostLost(f"the QEMU of the virtual host {how}", hint=self.stderr())

    def stderr(self) -> str:
        """What QEMU wrote to its standard error."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip()

    def wait(self, timeout_s: float) -> bool:
        """True when QEMU ended within the time."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it now; its machine has nothing that is worth a clean shutdown."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()
        self._popen.wait()


@contextlib.contextmanager
def start_qemu(machine: HostMachine, console: Path) -> Iterator[QemuProcess]:
    """Start QEMU; it is dead when the context ends, or when this process dies in whatever way.

    The disk is a sparse file without a name, so nothing is left behind even after SIGKILL.

    :raise InfraFault: QEMU is missing or refused to start.
    """
    if threading.current_thread() is not threading.main_thread():
        # PR_SET_PDEATHSIG fires when the *thread* that forked ends.
        raise InfraFault("a virtual host must be started from the main thread")
    qemu = str(machine.qemu or machine_qemu())
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise InfraFault("setpriv is not in PATH", hint="it is part of Debian's util-linux")
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(tempfile.TemporaryFile(dir=console.parent))
        disk.truncate(machine.disk_mib << 20)
        errors = stack.enter_context(tempfile.TemporaryFile())
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        command = host_command(
            qemu, machine,
            disk=f"/proc/self/fd/{disk.fileno()}", console=console, qmp_fd=theirs.fileno(), tsc_khz=tsc_khz(),
        )  # fmt: skip
        guard = [setpriv, "--pdeathsig", "KILL", "--", "sh", "-c", _STILL_MY_CHILD, str(os.getpid())]
        try:
            popen = subprocess.Popen(
                guard + command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(disk.fileno(), theirs.fileno()),
                start_new_session=True,  # Ctrl-C is for us: we end QEMU in order
            )
        except OSError as exc:
            raise InfraFault(f"cannot start {qemu}: {exc}") from exc
        finally:
            theirs.close()
        process = QemuProcess(popen, ours, errors)
        stack.callback(process.kill)
        yield process
