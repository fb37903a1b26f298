# SPDX-License-Identifier: GPL-2.0-or-later
"""Another kernel in place of the running one, once: kexec_file_load(2), then reboot(2) into it.

Nothing is installed.  What is loaded lies in memory, and the next reset starts what the machine's firmware starts: its
own kernel.  kernel/kexec_file.c, kernel/reboot.c:SYSCALL_DEFINE4(reboot), Linux 6.1.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import ipaddress
import os
import socket
import struct

from harness.agent.host import syscalls
from harness.agent.host.kernel_files import read_text, wait_until, write_text
from harness.agent.host.undo import Journal
from harness.contract.kexec_messages import GO, LEAVING, LOADED, KexecOffer
from harness.errors import DeadlineExpired, InfraFault

_LOADED = "/sys/kernel/kexec_loaded"
_DISABLED = "/proc/sys/kernel/kexec_load_disabled"
_LOCKDOWN = "/sys/kernel/security/lockdown"
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B  # include/uapi/linux/sockios.h
_GATEWAY = 0x2  # RTF_GATEWAY, include/uapi/linux/route.h
_READ_ONLY_S = 10.0


def offer(address: str) -> KexecOffer:
    """Whether this machine can boot another kernel, and how that one is reached at ``address``; empty: is not asked."""
    boot = read_text("/proc/sys/kernel/random/boot_id").strip()
    cmdline = read_text("/proc/cmdline").strip()
    refused = _refused_by_kernel()
    if not address:
        return KexecOffer(refused, boot, cmdline)
    try:
        mac, prefixed, gateway = _interface(address)
    except InfraFault as exc:
        return KexecOffer(refused or exc.message, boot, cmdline)
    return KexecOffer(refused, boot, cmdline, mac, prefixed, gateway)


def boot_other(kernel: str, initrd: str, cmdline: str, journal: str) -> None:
    """Load it, say so, and boot it when standard input says GO; without that it is unloaded again.

    :raise InfraFault: the machine cannot, or the kernel refused the file.
    """
    refused = _refused_by_kernel()
    if refused:
        raise InfraFault(refused)
    notes = Journal(journal)
    notes.change("kexec")
    try:
        syscalls.kexec_file_load(kernel, initrd, cmdline)
        print(LOADED, flush=True)
        if os.read(0, len(GO) + 1) == GO.encode() + b"\n":
            print(LEAVING, flush=True)
            _leave()
    except OSError as exc:
        raise InfraFault(f"{kernel} cannot be booted: {exc}") from exc
    finally:
        notes.undo_all()


def _leave() -> None:
    """Never returns, unless the kernel refuses.

    File systems on disks are made read-only first, as by SysRq U: what runs here is not asked to end.
    :raise OSError: see kexec_reboot.
    """
    os.sync()
    write_text("/proc/sysrq-trigger", "u")
    with contextlib.suppress(DeadlineExpired):  # what they hold was written by sync
        wait_until(lambda: not _writable(), _READ_ONLY_S, "file systems read-only")
    try:
        syscalls.kexec_reboot()
    finally:
        write_text("/proc/sysrq-trigger", "b")  # with disks that nobody can write to it is of no use to anybody


def _writable() -> bool:
    """Whether a file system on a block device is mounted for writing."""
    mounts = [line.split() for line in read_text("/proc/self/mounts").splitlines()]
    return any(words[0].startswith("/dev/") and "rw" in words[3].split(",") for words in mounts)


def _refused_by_kernel() -> str:
    if not os.path.exists(_LOADED):
        return "its kernel has no kexec (CONFIG_KEXEC_FILE)"
    if read_text(_LOADED).strip() != "0":
        return "somebody has loaded a kernel for kexec there already"
    if os.path.exists(_DISABLED) and read_text(_DISABLED).strip() != "0":
        return "kexec is switched off there until it is booted anew (kernel.kexec_load_disabled)"
    if os.path.exists(_LOCKDOWN) and "[none]" not in read_text(_LOCKDOWN):
        return "its kernel is locked down and boots only what is signed"
    return ""


def _interface(address: str) -> tuple[str, str, str]:
    """MAC, address with prefix, and default gateway of the interface with this address.

    :raise InfraFault: there is none, or it is no device of its own (a bridge, a bond): the other kernel has none.
    """
    for path in sorted(glob.glob("/sys/class/net/*")):
        name = os.path.basename(path)
        found, mask = (_ioctl_address(name, request) for request in (_SIOCGIFADDR, _SIOCGIFNETMASK))
        if found != address:
            continue
        if not os.path.exists(f"{path}/device"):
            raise InfraFault(f"its address {address} is that of {name}, which is no network card")
        prefix = ipaddress.IPv4Network(f"0.0.0.0/{mask}").prefixlen
        return read_text(f"{path}/address").strip(), f"{address}/{prefix}", _gateway(name)
    raise InfraFault(f"{address} is no IPv4 address of it")


def _ioctl_address(name: str, request: int) -> str:
    """netdevice(7); empty: the interface has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        try:
            answer = fcntl.ioctl(anything, request, struct.pack("16s240x", name.encode()))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def _gateway(name: str) -> str:
    for line in read_text("/proc/net/route").splitlines()[1:]:
        interface, target, gateway, flags = line.split()[:4]
        if interface == name and target == "00000000" and int(flags, 16) & _GATEWAY:
            return socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
    return ""
