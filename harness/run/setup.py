# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that must exist before the first scenario of a kernel can run: kernel, images, accelerator, host."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from harness.artifacts.images import images
from harness.artifacts.kernels import built_kernel
from harness.artifacts.kernels.built_kernel import BuiltKernel
from harness.artifacts.store import Store
from harness.contract.plan import (
    POOL_GPA,
    Access,
    Guest,
    GuestKind,
    Item,
    Memory,
    Op,
    Page,
    PageStart,
    Plan,
    Swap,
    SwapKind,
)
from harness.errors import InfraFault, UsageError
from harness.hosts.accel import Accel, find_accel
from harness.hosts.base import Host
from harness.hosts.local import start_local_host
from harness.hosts.performer import Payload, Performer
from harness.hosts.virtual.virtual_host import CMDLINE, Keys, start_virtual_host
from harness.hosts.virtual.vm import HostMachine, find_qemu
from harness.model.kernels import Variant
from harness.progress import Progress
from harness.run.described import require_model, require_model_of_built
from harness.run.judge_folder import end_status
from harness.run.request import Observer, Request
from harness.run.run_folder import RunFolder
from harness.run.selection import Job

LOCAL = "local"
"""The kernel id of the local host: whatever this machine runs."""

_LOCAL_GUEST_KERNEL = "debian-6.1"


@dataclass(frozen=True, slots=True)
class HostSetup:
    """Ready to run scenarios: how to start a host, what to ship to it, and which variant the kernel is."""

    start: Callable[[], AbstractContextManager[Host]]
    payload: Payload
    variant: Variant
    facts: dict[str, str]


def find_variants(request: Request) -> dict[str, str]:
    """The variant of each kernel of the request, by the name that was given; builds nothing.

    :raise CatalogError: a kernel does not exist.
    :raise ModelError: what a kernel does is not described.
    :raise UsageError: the kind of host cannot be had.
    """
    if request.host == "ssh":
        raise UsageError("hosts over SSH are not there yet", hint="run `apf run --host local` on that machine")
    if request.host == "local":
        return {LOCAL: "nowait"}
    find_qemu()
    for name in request.kernels:
        require_model(request.kernel(name))
    return {name: request.kernel(name).variant for name in request.kernels}


def find_setup(
    store: Store, name: str, jobs: Sequence[Job], request: Request, folder: RunFolder, observer: Observer
) -> HostSetup:
    """Build or find what the host needs.

    :raise ApfError: something cannot be built, or this machine cannot do it.
    """
    linux = any(job.scenario.guest.kind is GuestKind.LINUX for job in jobs)
    if request.host == "local":
        guest = built_kernel.kernel(store, _LOCAL_GUEST_KERNEL, observer.progress) if linux else None
        return _local(store, guest, request)
    kernel = built_kernel.kernel(store, request.kernel(name), observer.progress)
    require_model_of_built(name, kernel.variant, kernel.version or kernel.release)
    machine, keys = _machine(store, kernel, observer.progress)
    payload = _payload(store, kernel if linux else None)
    with store.lock("accel"):
        accel = find_accel(store.root, lambda: _trial(machine, keys, kernel, payload, folder, observer.progress))
    observer.line(f"{name}: {kernel.release}, {accel.name} ({accel.reason})")

    def start() -> AbstractContextManager[Host]:
        return start_virtual_host(
            replace(machine, accel=accel.name), keys, kernel.release, folder.console(name), observer.progress
        )

    return HostSetup(start, payload, Variant(kernel.variant), _facts(name, kernel, accel))


def _facts(name: str, kernel: BuiltKernel, accel: Accel) -> dict[str, str]:
    return {
        f"{name} release": kernel.release,
        f"{name} made from": kernel.identity,
        "accelerator": f"{accel.name} ({accel.reason})",
    }


def _machine(store: Store, kernel: BuiltKernel, progress: Progress) -> tuple[HostMachine, Keys]:
    image = images.host_image(store, progress)
    initrd = images.host_initramfs(store, kernel)
    cmdline = f"{CMDLINE} {kernel.cmdline}".strip()
    machine = HostMachine("tcg", kernel.bzimage, initrd, image.root_ext4, cmdline)
    return machine, Keys(image.ssh_client_key, image.ssh_host_public_key)


def _payload(store: Store, guest: BuiltKernel | None) -> Payload:
    payload = Payload(images.agent_zipapp(store), images.probe_guest(store))
    if guest is None:
        return payload
    return replace(payload, guest_kernel=guest.bzimage, guest_initrd=images.linux_guest_initramfs(store, guest))


def _local(store: Store, guest: BuiltKernel | None, request: Request) -> HostSetup:
    @contextmanager
    def start() -> Iterator[Host]:
        with start_local_host(request.disk) as host:
            yield host

    return HostSetup(start, _payload(store, guest), Variant.NOWAIT, {"local release": platform.release()})


def _trial(
    machine: HostMachine, keys: Keys, kernel: BuiltKernel, payload: Payload, folder: RunFolder, progress: Progress
) -> None:
    """A virtual host under KVM that runs a guest, under its own KVM, to its end.

    :raise ApfError: it did not.
    """
    progress("testing whether nested KVM works here")
    out = folder.path / "kvm-test"
    with start_virtual_host(
        replace(machine, accel="kvm"), keys, kernel.release, out.with_suffix(".console.txt"), progress
    ) as host:
        Performer(host, payload).perform(trial_plan(), out, lambda step, _told: progress(step))
    status, reason = end_status(out)
    if status != "done":
        raise InfraFault(f"the test guest ended with {status!r}: {reason}")


def trial_plan() -> Plan:
    """The smallest plan there is: a probe guest reads one resident page."""
    return Plan(
        scenario="kvm-test",
        title="does a guest run to its end",
        nonce=0x6B766D2D74657374,
        guest=Guest(memory_mib=32),
        memory=Memory(),
        swap=Swap(kind=SwapKind.NONE),
        pages=(Page(POOL_GPA, PageStart.POPULATED, "p[0]"),),
        items=(Item(index=0, op=Op.TOUCH, gpa=POOL_GPA, access=Access.READ, page="p[0]"),),
        deadline_s=20,
    )
