# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of the lab that is booted into a kernel under test by kexec, and comes back to its own (docs/lab.md).

The other kernel runs with the virtual host's root file system in memory: nothing is installed on the machine, and none
of its disks is mounted.  So any reset leads to the machine's own kernel, and there are five ways to one: we ask for it
at the end; the kernel under test panics; nobody holds the machine for a while, or its time is over
(guest-images/host/minder); its power is switched off and on.  What we are about to do is noted before it is done
(away_note.py), so that a run that is killed is followed by one that brings the machine back.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from harness.artifacts.images import images
from harness.artifacts.images.cpio import Cpio
from harness.artifacts.scratch import scratch_folder
from harness.contract.kexec_messages import GO, LEAVING, LOADED, KexecOffer
from harness.errors import ApfError, DeadlineExpired, HostLost, InfraFault, KernelFault
from harness.hosts import HostOrder
from harness.hosts.away_note import Away, AwayNote, hold_note
from harness.hosts.base import Host
from harness.hosts.deadline import Deadline
from harness.hosts.kexec_offer import ask_offer
from harness.hosts.lab_file import LabHost
from harness.hosts.local import run_here
from harness.hosts.reserved_host import ReservedOrder, reserved_host
from harness.hosts.ssh_machine import SshMachine, connect_way
from harness.hosts.stream import Lines
from harness.progress import Progress

Way = tuple[LabHost, ...]

_COPY_S, _ASK_S, _LOAD_S, _LEAVE_S = 900.0, 60.0, 180.0, 60.0
_TRY_S = 10.0
_POLL_S = 1.0
_POWER_S = 120.0
_UNHELD_S = 120
"""How long the machine waits for a run to hold it, under the other kernel."""
_MORE_S = 900
"""What it may be up beyond the time of a run."""
_DISK_MIB = 320
"""A disk in memory; a scenario's swap has 256 MiB (contract/plan.py:Swap)."""
_NOT_FOR_IT = re.compile(
    r"(BOOT_IMAGE|root|rootfstype|rootflags|rootwait|rootdelay|ro|rw|initrd|init|resume|resume_offset|noresume"
    r"|crashkernel|panic|oops|quiet|splash|loglevel|(rd|systemd|luks)\..*)(=.*)?"
)
"""Words of the command line that are about the machine's own system."""
_OURS = "/run/apf/kexec"
"""Where guest-images/host/init has what settings() made: only the other system has it, whatever keys it has."""
_SEND_BACK = (
    f"[ -e {_OURS} ] || exit 0; echo 1 > /proc/sys/kernel/sysrq; "
    "setsid sh -c 'reboot -f & sleep 10; echo b > /proc/sysrq-trigger' < /dev/null > /dev/null 2>&1 &"
)
_WHICH = f"read -r boot < /proc/sys/kernel/random/boot_id; [ -e {_OURS} ] && echo other $boot || echo own $boot"


def settle(chain: Way, order: HostOrder) -> None:
    """Bring the machine back if a run that was killed has left it under another kernel.

    :raise HostBusy: a run that lives has it so.
    :raise InfraFault: it does not come back.
    """
    if not chain[-1].kexec:
        return
    with _note(chain, order) as note:
        away = note.read()
        if away is not None:
            _bring_back(chain, _there(chain, order), away, note, order.progress)


@contextlib.contextmanager
def booted_by_kexec(chain: Way, order: HostOrder) -> Iterator[Way]:
    """The machine under the kernel of the order, until the context ends; it is back on its own then.

    :raise HostBusy, InfraFault: it cannot be had, or cannot boot another kernel.
    :raise KernelFault: the other kernel does not come up.
    :raise InfraFault: at the end: it does not come back.
    """
    there = _there(chain, order)
    with _note(chain, order) as note:
        away = _send_off(chain, order, note)
        try:
            _await(chain, there, away, order.progress)
            yield there
        finally:
            _bring_back(chain, there, away, note, order.progress)


def _note(chain: Way, order: HostOrder) -> AbstractContextManager[AwayNote]:
    entry = chain[-1]
    key = f"{entry.address} {entry.port} {entry.host_key}"
    return hold_note(order.store.root / "away", entry.name, key, order.wait_s, order.progress)


def _there(chain: Way, order: HostOrder) -> Way:
    """The way to the machine under the other kernel: the same address, but the image's keys and no disk."""
    image, own = images.host_image(order.store, order.progress), chain[-1]
    entry = replace(
        own, user="root", key=image.ssh_client_key, host_key=image.ssh_host_public_key, disk="", scratch="/tmp",
        disk_mib=_DISK_MIB, kexec=False,
    )  # fmt: skip
    return (*chain[:-1], entry)


class _Left(Exception):
    """The machine has gone to the other kernel; with it the reservation."""

    def __init__(self, away: Away) -> None:
        super().__init__()
        self.away = away


def _send_off(chain: Way, order: HostOrder, note: AwayNote) -> Away:
    """Reserve the machine, so that nobody is disturbed, load the kernel there, and let it be booted.

    :raise InfraFault: it is not booted.
    """
    entry = chain[-1]
    reserved = ReservedOrder(
        "ssh", order.payload.agent, order.progress, entry.disk, 0, wait_s=order.wait_s, limit_s=entry.minutes * 60.0
    )
    try:
        with connect_way(chain) as machine:
            words = machine.told(["sh", "-c", "echo $SSH_CONNECTION"]).split()
            if len(words) != 4:
                raise InfraFault(f"{entry.name} does not say at which of its addresses it was reached: {words}")
            with reserved_host(machine, reserved) as host:
                _boot(machine, host, order, entry, (words[2], words[3]), note)
    except _Left as left:
        return left.away
    raise InfraFault(f"{entry.name} did not boot another kernel")


def _boot(
    machine: SshMachine, host: Host, order: HostOrder, entry: LabHost, at: tuple[str, str], note: AwayNote
) -> None:
    """:param at: address and port of its SSH server, as it says.

    :raise _Left: done.
    :raise InfraFault: the machine cannot, or the kernel there refuses.
    """
    folder, kernel = host.facts.folder, order.kernel
    if kernel is None:
        raise InfraFault("a kernel was to be booted, and none was ordered")
    running, agent = machine.kernel(), f"{folder}/agent.pyz"
    host.put(order.payload.agent, agent, deadline_s=_COPY_S)
    offer = ask_offer(host, agent, at[0])
    if offer.refused:
        raise InfraFault(f"{entry.name} cannot boot another kernel: {offer.refused}")
    order.progress(f"sending {kernel.id} to {entry.name}")
    host.put(kernel.bzimage, f"{folder}/bzImage", deadline_s=_COPY_S)
    with scratch_folder("apf-kexec-") as scratch:
        archive = scratch / "initrd"
        parts = (images.host_initramfs(order.store, kernel), images.host_in_memory(order.store, order.progress))
        archive.write_bytes(b"".join(part.read_bytes() for part in parts) + settings(offer, at[1], entry.minutes))
        host.put(archive, f"{folder}/initrd", deadline_s=_COPY_S)
    away = Away(offer.boot, running.release, running.version, kernel.id)
    words = [
        "python3", agent, "kexec", "--kernel", f"{folder}/bzImage", "--initrd", f"{folder}/initrd",
        "--cmdline", command_line(offer.cmdline, kernel.cmdline), "--journal", f"{folder}/machine/journal.jsonl",
    ]  # fmt: skip
    with contextlib.closing(machine.open(words)) as stream:
        lines = Lines(stream)
        if lines.next(Deadline.after(_LOAD_S, "loading the kernel")) != LOADED:
            raise InfraFault(
                f"{entry.name} cannot boot {kernel.id}: {stream.errors().decode(errors='replace').strip()}"
            )
        note.write(away)
        order.progress(f"{entry.name} boots {kernel.id}")
        leaving = Deadline.after(_LEAVE_S, f"{entry.name} leaving for {kernel.id}")
        stream.send(GO.encode() + b"\n", leaving)
        with contextlib.suppress(HostLost, DeadlineExpired):  # the line may not have come through
            if lines.next(leaving) != LEAVING:
                raise InfraFault(f"{entry.name} did not boot: {stream.errors().decode(errors='replace').strip()}")
        machine.drop()
    raise _Left(away)


def command_line(own: str, more: str) -> str:
    """For the other kernel: what the machine's own says of the hardware, and that a panic is a reset."""
    kept = [word for word in own.split() if not _NOT_FOR_IT.fullmatch(word)]
    return " ".join([*kept, "panic=10", "oops=panic", "loglevel=5", *more.split()])


def settings(offer: KexecOffer, port: str, minutes: int) -> bytes:
    """What guest-images/host/init reads, as an archive.

    :raise InfraFault: what the machine says of itself is no address.
    """
    try:
        address = str(ipaddress.IPv4Interface(offer.address))
        gateway = str(ipaddress.IPv4Address(offer.gateway)) if offer.gateway else ""
        number = int(port) if port.isascii() and port.isdigit() else 0
        if not 0 < number < 1 << 16:
            raise ValueError(f"port {port!r}")
    except ValueError as exc:
        raise InfraFault(f"that is no address of a machine: {exc}") from exc
    if not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", offer.mac):
        raise InfraFault(f"{offer.mac!r} is no address of a network card")
    told = {
        "mac": offer.mac, "address": address, "gateway": gateway, "port": number, "silence": _UNHELD_S,
        "limit": minutes * 60 + _MORE_S,
    }  # fmt: skip
    cpio = Cpio()
    cpio.file("apf/kexec", "".join(f"{key} {value}\n" for key, value in told.items()).encode())
    return cpio.compressed()


def _await(chain: Way, there: Way, away: Away, progress: Progress) -> None:
    """Until the other kernel is up.

    :raise KernelFault: it is not, or the machine is back on its own already.
    """
    entry = chain[-1]
    began = time.monotonic()
    while time.monotonic() - began < entry.boot_s:
        progress(f"{entry.name} boots {away.kernel}: {time.monotonic() - began:.0f} s")
        if _boot_of(there, "other"):
            return
        if _boot_of(chain, "own") not in ("", away.boot):
            raise KernelFault(f"{away.kernel} did not come up on {entry.name}, which is back on its own kernel")
        time.sleep(_POLL_S)
    raise KernelFault(f"{away.kernel} did not come up on {entry.name} in {entry.boot_s} s")


def _boot_of(way: Way, system: str) -> str:
    """boot_id of the machine when it runs that system, "own" or "other"; empty: it does not answer as that one."""
    with contextlib.suppress(ApfError), connect_way(way, _TRY_S) as machine:
        words = machine.told(["sh", "-c", _WHICH]).split()
        return words[1] if len(words) == 2 and words[0] == system else ""
    return ""


def _bring_back(chain: Way, there: Way, away: Away, note: AwayNote, progress: Progress) -> None:
    """Until the machine runs its own kernel.

    :raise InfraFault: it does not come back, or with another kernel than before.
    """
    entry = chain[-1]
    for power in (False, True):
        if power:
            progress(f"{entry.name} did not come back: its power is switched off and on")
            _cycle_power(entry)
        began = time.monotonic()
        while time.monotonic() - began < entry.boot_s:
            progress(f"{entry.name} goes back to its own kernel: {time.monotonic() - began:.0f} s")
            with contextlib.suppress(ApfError), connect_way(there, _TRY_S) as machine:
                machine.run(["sh", "-c", _SEND_BACK], deadline_s=_TRY_S)
            if _boot_of(chain, "own"):
                return _require_own(chain, away, note)
            time.sleep(_POLL_S)
    raise InfraFault(
        f"{entry.name} has not come back from {away.kernel} in {entry.boot_s} s, with its power switched off and on",
        hint=f"the next run there tries again, as long as there is {note.path}",
    )


def _require_own(chain: Way, away: Away, note: AwayNote) -> None:
    with connect_way(chain) as machine:
        running = machine.kernel()
    note.clear()
    if (running.release, running.version) != (away.release, away.version):
        raise InfraFault(
            f"{chain[-1].name} has come back with {running.release} {running.version},"
            f" and ran {away.release} {away.version} before"
        )


def _cycle_power(entry: LabHost) -> None:
    """:raise InfraFault: its command failed."""
    done = run_here(list(entry.power), Deadline.after(_POWER_S, f"switching the power of {entry.name}"))
    if done.code != 0:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise InfraFault(f"the power of {entry.name} cannot be switched: {entry.power[0]}: {said or done.code}")
