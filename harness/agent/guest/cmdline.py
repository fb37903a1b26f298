# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line for a plan.  Pure: a list from values."""

from __future__ import annotations

from dataclasses import dataclass

from harness.agent.ram.choose import ram_of
from harness.contract.plan import Guest, GuestKind, HostWord, Plan, resets, says
from harness.errors import UsageError

_MACHINES = {
    # No BIOS option ROMs and no legacy timer or interrupt controller: nothing of the machine model interferes.
    "microvm": "microvm,x-option-roms=off,pit=off,pic=off,isa-serial=on",
    "q35": "q35",
}
# Linux waits for a clock that is not there, by ten thousands of port reads (drivers/rtc/rtc-mc146818-lib.c).
_MICROVM_CLOCK = {GuestKind.PROBE: "rtc=off", GuestKind.LINUX: "rtc=on"}
# What a guest need not do while it boots: find its place, repair its processor, log, test, probe absent ports.
_LESS_WORK = (
    "quiet loglevel=5 nokaslr mitigations=off random.trust_cpu=on no_timer_check tsc=reliable audit=0 apparmor=0"
    " selinux=0 rcupdate.rcu_expedited=1 8250.nr_uarts=1 cryptomgr.notests ima_appraise=off nowatchdog"
)


@dataclass(frozen=True, slots=True)
class GuestFiles:
    """Paths and inherited file descriptors that QEMU gets."""

    qemu: str
    kernel: str
    initrd: str
    console: str
    result: str = ""  # Linux guests: what is written to port 0xe9
    ram: str = ""  # file backing: the RAM file
    qmp_fd: int = 3
    serial_fd: int = -1  # Linux guests: a socket, so that the agent can write to ttyS0
    accel: str = "kvm"  # or "tcg", for the agent's own tests
    snapshot_fd: int = -1  # an empty qcow2 image, for a plan that says savevm


def build_qemu_argv(plan: Plan, files: GuestFiles) -> list[str]:
    """The whole command line, pairs in order.

    :raise UsageError: a machine type or an interrupt controller that the agent does not know.
    """
    guest = plan.guest
    if guest.machine not in _MACHINES:
        raise UsageError(f"machine {guest.machine!r}: the agent knows {', '.join(_MACHINES)}")
    if guest.irqchip not in ("on", "split", "off"):
        raise UsageError(f"irqchip {guest.irqchip!r}: on, split or off")
    argv = [
        files.qemu,
        "-name", "apf,debug-threads=on",
        "-machine", f"{_machine(guest)},mem-merge=off,memory-backend=ram",
        "-accel", f"kvm,kernel-irqchip={guest.irqchip}" if files.accel == "kvm" else files.accel,
        "-cpu", "max" if files.accel != "kvm" and guest.cpu == "host" else guest.cpu,
        "-smp", _smp(guest),
        "-m", f"{guest.memory_mib}M",
        "-object", _memory_backend(plan, files),
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
    ]  # fmt: skip
    if not (resets(plan) or says(plan, HostWord.RESET)):
        argv.append("-no-reboot")  # a triple fault ends QEMU, and is noticed
    if guest.machine == "microvm":
        argv += ["-bios", "qboot.rom"]
    if guest.cpu_pm:
        argv += ["-overcommit", "cpu-pm=on"]
    argv += ["-chardev", f"socket,id=qmp,fd={files.qmp_fd}", "-mon", "chardev=qmp,mode=control"]
    argv += _serial(files)
    if files.result:
        argv += [
            "-chardev",
            f"file,id=result,path={files.result}",
            "-device",
            "isa-debugcon,iobase=0xe9,chardev=result",
        ]
    if files.snapshot_fd >= 0:
        argv += ["-drive", f"if=none,id=snapshots,format=qcow2,file=/proc/self/fd/{files.snapshot_fd}"]
    argv += ["-kernel", files.kernel, "-initrd", files.initrd]
    if guest.kind is GuestKind.LINUX:
        argv += ["-append", linux_cmdline(plan)]
    return argv


def _machine(guest: Guest) -> str:
    options = _MACHINES[guest.machine]
    return f"{options},{_MICROVM_CLOCK[guest.kind]}" if guest.machine == "microvm" else options


def _smp(guest: Guest) -> str:
    """Which APIC ids that makes: plan.vcpu_ids.  The cores of the last socket that are left over are not there."""
    if not guest.cores:
        return str(guest.vcpus)
    sockets = -(-guest.vcpus // guest.cores)
    return f"{guest.vcpus},sockets={sockets},cores={guest.cores},threads=1,maxcpus={sockets * guest.cores}"


def linux_cmdline(plan: Plan) -> str:
    """The kernel command line of a Linux guest: what guest-images/linux asks for, then the plan's own words."""
    guest = plan.guest
    own = f"apf.nonce={plan.nonce:x} apf.workload={guest.workload} apf.pages={guest.workload_pages}"
    return f"console=ttyS0 {_LESS_WORK} {own} {guest.cmdline}".rstrip()


def _serial(files: GuestFiles) -> list[str]:
    if files.serial_fd < 0:
        return ["-chardev", f"file,id=serial,path={files.console}", "-serial", "chardev:serial"]
    socket = f"socket,id=serial,fd={files.serial_fd},logfile={files.console}"
    return ["-chardev", socket, "-serial", "chardev:serial"]


def _memory_backend(plan: Plan, files: GuestFiles) -> str:
    share = "on" if plan.memory.share else "off"
    kind, more = ram_of(plan.memory.backing).qemu_object(files.ram)
    return f"{kind},id=ram,size={plan.guest.memory_mib}M,share={share},merge=off,prealloc=off{more}"
