# SPDX-License-Identifier: GPL-2.0-or-later
"""What a plan needs of a host, held against what the host offers: asked by the agent before it changes anything, and by
``apf doctor`` for every scenario at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.contract.capture import HostFacts
from harness.contract.gate import Rule, rule_of
from harness.contract.plan import GuestKind, Plan, SwapKind
from harness.contract.words import Backing, HostWord, ReadOrder

QEMU_MIB = 192
"""What QEMU needs besides the guest's memory, with room to spare."""
NO_DISK = "dm-delay needs a disk"
_VERSION = re.compile(r"(?<=version )(\d+)\.\d+")
_GATE_WORDS = frozenset({HostWord.RELEASE, HostWord.WAIT_SETTLED, HostWord.WAIT_HALTED})
"""What only a gated device can do."""


@dataclass(frozen=True, slots=True)
class HostOffers:
    """What a host has, as far as plans ask for it.

    :ivar qemu: first line of ``--version``, or its path where that is not asked for (hangs_on_version); empty: it
        cannot be run.
    :ivar userfaultfd: the kernel has it, and the agent may handle faults of kernel mode.
    :ivar memory_mib: MemAvailable.
    :ivar disk: a block device that may be overwritten; empty: none.
    :ivar accel: what runs guests, "kvm" or "tcg".
    :ivar memory_limit_mib: what guests may take; 0: what is available.
    """

    host: HostFacts
    qemu: str
    userfaultfd: bool
    memory_mib: int
    disk: str = ""
    accel: str = "kvm"
    memory_limit_mib: int = 0


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that a plan needs and the host does not have; ``remedy``: the command that provides it."""

    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.remedy})" if self.remedy else self.what


def without_gate(plan: Plan) -> Plan | None:
    """The same plan on dm-delay, for hosts without nbd; None: dm-delay cannot end reads as the plan says."""
    words = {action.do for actions in plan.host_actions for action in actions}
    words |= {action.do for timed in plan.timed for action in timed.actions}
    swap = plan.swap
    plain = rule_of(swap) == Rule() and not swap.error and swap.order is ReadOrder.TARGET_LAST
    return replace(plan, swap=replace(swap, kind=SwapKind.DELAY)) if plain and not words & _GATE_WORDS else None


def lacks(plan: Plan, offers: HostOffers) -> Iterator[Lack]:
    """Everything that this plan lacks on this host; nothing: it can be performed there, as far as that can be asked."""
    host = offers.host
    if offers.accel == "kvm":
        if not host.kvm_device:
            yield Lack("/dev/kvm is not there or not usable", "modprobe kvm_amd || modprobe kvm_intel")
        if not host.cgroup_memory:
            yield Lack(
                "the host has no cgroup v2 memory controller",
                "boot with systemd.unified_cgroup_hierarchy=1 cgroup_enable=memory",
            )
        if plan.guest.kind is not GuestKind.HOST_PROGRAM:
            yield from _tracing(host)
    if plan.guest.kind is GuestKind.HOST_PROGRAM:
        return
    yield from _memory(plan, offers)
    if not offers.qemu:
        yield Lack("QEMU cannot be run on the host", "apt-get install qemu-system-x86")
    yield from _qemu(plan, offers)
    yield from _device(plan, offers)
    for parameter, _ in (*plan.kernel_params, *plan.kernel_params_at_go):
        if parameter.partition(".")[0] in ("kvm", "kvm_amd", "kvm_intel") and parameter not in host.kvm_parameters:
            yield Lack(f"the host's kernel has no module parameter {parameter}")


def hangs_on_version(plan: Plan) -> bool:
    """Whether it matters which QEMU the host has, so that ``HostOffers.qemu`` has to say it."""
    guest = plan.guest
    return guest.vcpus > 1 and (guest.irqchip == "off" or (guest.machine == "q35" and guest.cpu_pm))


def _qemu(plan: Plan, offers: HostOffers) -> Iterator[Lack]:
    """What its QEMU cannot do with several vCPUs."""
    found = _VERSION.search(offers.qemu)
    guest, remedy = plan.guest, "QEMU 8.0 or later"
    if not hangs_on_version(plan) or found is None or int(found[1]) >= 8:
        return
    if guest.machine == "q35" and guest.cpu_pm:
        # SeaBIOS moves them (PAM) while the other vCPUs stand behind a HLT that does not exit, and fetch from them:
        # "KVM internal error. Suberror: 1".  QEMU 8.0: accel_ioctl_inhibit_begin (accel/kvm/kvm-all.c).
        yield Lack(
            f"QEMU {found[0]} takes memory slots away from vCPUs that run: no cpu_pm on a q35 with several", remedy
        )
    if guest.irqchip == "off":
        yield Lack(f"with QEMU {found[0]} a guest of several vCPUs never gets ready with irqchip = off", remedy)


def _tracing(host: HostFacts) -> Iterator[Lack]:
    if not host.tracefs:
        yield Lack("tracefs is not mounted on the host", "mount -t tracefs tracefs /sys/kernel/tracing")
    elif not host.kprobe_events:
        yield Lack("the host's kernel has no kprobe events", "a kernel with CONFIG_KPROBE_EVENTS")


def _memory(plan: Plan, offers: HostOffers) -> Iterator[Lack]:
    """The guest and its QEMU must find room without anything else being paged out."""
    wanted = plan.guest.memory_mib + QEMU_MIB
    limit = offers.memory_limit_mib
    if wanted > min(limit or offers.memory_mib, offers.memory_mib):
        allowed = f", of which {limit} MiB may be used" if limit else ""
        yield Lack(
            f"the plan wants {wanted} MiB of memory ({QEMU_MIB} of them for QEMU),"
            f" the host has {offers.memory_mib} MiB available{allowed}"
        )


def _device(plan: Plan, offers: HostOffers) -> Iterator[Lack]:
    host, swap = offers.host, plan.swap
    kind = swap.kind
    if kind is SwapKind.GATED and not host.nbd:
        if without_gate(plan) is None:
            yield Lack(
                "the host's kernel has no nbd, and dm-delay cannot end reads as this plan says",
                "modprobe nbd, or a kernel that has it: Debian's linux-image-amd64",
            )
        else:
            kind = SwapKind.DELAY
    if kind is SwapKind.DELAY:
        if not host.dm_delay:
            yield Lack("the host's kernel has no dm-delay", "modprobe dm-delay, or a kernel with CONFIG_DM_DELAY")
        elif not offers.disk:
            yield Lack(NO_DISK, "--disk DEV, or room for a file in /var/tmp and modprobe loop")
    if kind is SwapKind.USERFAULT and not offers.userfaultfd:
        yield Lack(
            "the host's kernel has no userfaultfd, or the agent may not handle faults of kernel mode",
            "a kernel with CONFIG_USERFAULTFD",
        )
    if kind is SwapKind.ZRAM:
        if not host.zram:
            yield Lack("the host's kernel has no zram", "modprobe zram, or a kernel with CONFIG_ZRAM")
        if host.swap_in_use:
            yield Lack(
                f"other swap is in use on the host ({', '.join(host.swap_in_use)}), and reads of zram cannot be told"
                " apart from its",
                "swapoff " + " ".join(host.swap_in_use),
            )
    if plan.memory.backing is Backing.FILE and not host.mkfs_ext4:
        yield Lack("mkfs.ext4 is not installed on the host", "apt-get install e2fsprogs")
