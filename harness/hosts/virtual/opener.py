# SPDX-License-Identifier: GPL-2.0-or-later
"""What a virtual host is made from: images, keys, and the accelerator that works on this machine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace

from harness.artifacts.images import images
from harness.artifacts.images.packaged_qemu import find_qemu
from harness.artifacts.images.qemu_plugin import pause_plugin
from harness.artifacts.kernels.built_kernel import BuiltKernel
from harness.artifacts.store import Store
from harness.errors import InfraFault
from harness.hosts import HostOpener, HostOrder
from harness.hosts.accel import find_accel
from harness.hosts.base import Host
from harness.hosts.performer import Performer
from harness.hosts.trial import require_done, trial_plan
from harness.hosts.virtual.virtual_host import CMDLINE, Keys, start_virtual_host
from harness.hosts.virtual.vm import HostMachine
from harness.progress import Progress


def prepare(order: HostOrder) -> HostOpener:
    """Find or make the images, and find out what can run them.

    :raise ApfError: something cannot be built, or this machine cannot do it.
    """
    kernel = order.kernel
    if kernel is None:
        raise InfraFault("a virtual host was ordered without a kernel")
    qemu = find_qemu(order.store, order.host_qemu, order.progress)
    machine, keys, inside = machine_for(order.store, kernel, order.progress, order.guest_qemu)
    plugin = pause_plugin(order.store, qemu)
    machine = replace(machine, qemu=qemu.path, emulator=qemu.number, plugin=plugin.path)
    with order.store.lock("accel"):
        accel = find_accel(order.store.root, lambda: _trial(order, machine, keys, kernel.release))

    def start() -> AbstractContextManager[Host]:
        chosen = replace(machine, accel=accel.name, reboots=order.reboots)
        return start_virtual_host(chosen, keys, kernel.release, order.console(), order.progress)

    shown = f"{qemu}; {plugin}" if accel.name == "tcg" else str(qemu)
    facts = {"accelerator": f"{accel.name} ({accel.reason})", "host QEMU": shown, "guest QEMU": f"QEMU {inside}"}
    return HostOpener(start, facts)


def machine_for(
    store: Store, kernel: BuiltKernel, progress: Progress, guest_qemu: str = ""
) -> tuple[HostMachine, Keys, str]:
    """The virtual machine that boots this kernel, how to get in, and the version of the QEMU in it; the accelerator and
    what runs it are yet to be chosen."""
    image = images.host_image(store, progress, guest_qemu)
    initrd = images.host_initramfs(store, kernel)
    cmdline = f"{CMDLINE} {kernel.cmdline}".strip()
    machine = HostMachine("tcg", kernel.bzimage, initrd, image.root_ext4, cmdline)
    return machine, Keys(image.ssh_client_key, image.ssh_host_public_key), image.qemu_version


def _trial(order: HostOrder, machine: HostMachine, keys: Keys, release: str) -> None:
    """A virtual host under KVM that runs a guest, under its own KVM, to its end.

    :raise ApfError: it did not.
    """
    order.progress("testing whether nested KVM works here")
    console = order.console()
    out = console.with_name("kvm-test")
    with start_virtual_host(replace(machine, accel="kvm"), keys, release, console, order.progress) as host:
        Performer(host, order.payload).perform(trial_plan(), out, lambda step, _told: order.progress(step))
    require_done(out)
