# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole command line, word by word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.agent.guest.cmdline import GuestFiles, build_qemu_argv, linux_cmdline
from harness.contract import plan as p
from harness.errors import UsageError
from tests.unit.agent.conftest import make_plan

PROBE = GuestFiles("qemu", "probe.elf", "items.bin", "console.txt", qmp_fd=7)


def test_probe_on_microvm() -> None:
    assert build_qemu_argv(make_plan(), PROBE) == [
        "qemu",
        "-name", "apf,debug-threads=on",
        "-machine", "microvm,x-option-roms=off,pit=off,pic=off,isa-serial=on,rtc=off,mem-merge=off,memory-backend=ram",
        "-accel", "kvm,kernel-irqchip=on",
        "-cpu", "host",
        "-smp", "1",
        "-m", "64M",
        "-object", "memory-backend-ram,id=ram,size=64M,share=off,merge=off,prealloc=off",
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        "-no-reboot",
        "-bios", "qboot.rom",
        "-chardev", "socket,id=qmp,fd=7", "-mon", "chardev=qmp,mode=control",
        "-chardev", "file,id=serial,path=console.txt", "-serial", "chardev:serial",
        "-kernel", "probe.elf", "-initrd", "items.bin",
    ]  # fmt: skip


def test_sockets_that_are_not_full() -> None:
    for vcpus, cores, smp in (
        (4, 3, "4,sockets=2,cores=3,threads=1,maxcpus=6"), (2, 4, "2,sockets=1,cores=4,threads=1,maxcpus=4"),
    ):  # fmt: skip
        plan = replace(make_plan(), guest=p.Guest(vcpus=vcpus, cores=cores))
        argv = build_qemu_argv(plan, GuestFiles("qemu", "probe.elf", "items.bin", "console.txt"))
        assert argv[argv.index("-smp") + 1] == smp


def test_linux_on_q35() -> None:
    guest = p.Guest(
        kind=p.GuestKind.LINUX, machine="q35", vcpus=2, memory_mib=256, cpu="EPYC", irqchip="split", cpu_pm=True,
        cmdline="no-kvmapf", workload="touch", workload_pages=100,
    )  # fmt: skip
    plan = replace(make_plan(pages=0), guest=guest, memory=p.Memory(p.Backing.FILE, share=True))
    files = GuestFiles(
        "qemu", "bzImage", "guest.cpio", "console.txt", result="result.txt", ram="ram", qmp_fd=7, serial_fd=9
    )  # fmt: skip
    assert build_qemu_argv(plan, files) == [
        "qemu",
        "-name", "apf,debug-threads=on",
        "-machine", "q35,mem-merge=off,memory-backend=ram",
        "-accel", "kvm,kernel-irqchip=split",
        "-cpu", "EPYC",
        "-smp", "2",
        "-m", "256M",
        "-object", "memory-backend-file,id=ram,size=256M,share=on,merge=off,prealloc=off,mem-path=ram",
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        "-no-reboot",
        "-overcommit", "cpu-pm=on",
        "-chardev", "socket,id=qmp,fd=7", "-mon", "chardev=qmp,mode=control",
        "-chardev", "socket,id=serial,fd=9,logfile=console.txt", "-serial", "chardev:serial",
        "-chardev", "file,id=result,path=result.txt", "-device", "isa-debugcon,iobase=0xe9,chardev=result",
        "-kernel", "bzImage", "-initrd", "guest.cpio",
        "-append", linux_cmdline(plan),
    ]  # fmt: skip
    words = linux_cmdline(plan).split()
    assert words[0] == "console=ttyS0" and "quiet" in words
    assert words[-4:] == ["apf.nonce=123456789abcdef", "apf.workload=touch", "apf.pages=100", "no-kvmapf"]


@pytest.mark.parametrize(("kind", "clock"), [(p.GuestKind.PROBE, "rtc=off"), (p.GuestKind.LINUX, "rtc=on")])
def test_only_linux_gets_a_clock(kind: p.GuestKind, clock: str) -> None:
    plan = replace(make_plan(pages=0), guest=p.Guest(kind=kind))
    argv = build_qemu_argv(plan, GuestFiles("qemu", "k", "i", "console.txt"))
    assert clock in argv[argv.index("-machine") + 1].split(",")


def test_memfd() -> None:
    argv = build_qemu_argv(make_plan(memory=p.Memory(p.Backing.MEMFD, share=True)), PROBE)
    assert argv[argv.index("-object") + 1] == "memory-backend-memfd,id=ram,size=64M,share=on,merge=off,prealloc=off"


@pytest.mark.parametrize("guest", [p.Guest(machine="pc"), p.Guest(irqchip="maybe")])
def test_unknown_words_are_refused(guest: p.Guest) -> None:
    with pytest.raises(UsageError):
        build_qemu_argv(replace(make_plan(), guest=guest), PROBE)


def test_a_plan_with_a_reset_survives_it() -> None:
    reset = (p.HostAction(p.HostWord.STOP), p.HostAction(p.HostWord.RESET))
    loaded = (*reset, p.HostAction(p.HostWord.LOADVM))  # no vCPU lives anew, but QEMU is told to reset
    for plan in (
        make_plan(host_actions=(reset,)),
        make_plan(host_actions=(loaded,)),
        make_plan(timed=(p.TimedAction(1, reset),)),
    ):
        assert "-no-reboot" not in build_qemu_argv(plan, PROBE)
    assert "-no-reboot" in build_qemu_argv(make_plan(host_actions=((p.HostAction(p.HostWord.STOP),),)), PROBE)
