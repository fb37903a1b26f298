# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that must exist before the first scenario of a kernel can run: kernel, images, host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from harness.artifacts.images import images
from harness.artifacts.kernels import built_kernel, citations
from harness.artifacts.kernels.built_kernel import BuiltKernel, banner_of
from harness.artifacts.kernels.citations import Difference
from harness.artifacts.store import Store
from harness.contract.plan import GuestKind
from harness.errors import ApfError, UsageError
from harness.hosts import HostOrder
from harness.hosts.base import Host
from harness.hosts.performer import Payload
from harness.model.kernels import KernelModel, Variant, kernel_for
from harness.model.known_faults import with_fixes
from harness.run.described import require_model, require_model_of_built
from harness.run.request import Observer, Request
from harness.run.run_folder import RunFolder
from harness.run.selection import Job

_LOCAL_GUEST_KERNEL = "debian-6.1"
"""What a Linux guest boots where the kernel under test is the machine's own, whose image we may not be able to read."""


@dataclass(frozen=True, slots=True)
class HostSetup:
    """Ready to run scenarios: how to start a host, what to ship to it, and which variant the kernel is.

    ``model``: what judges it, as judge_folder() takes it.
    """

    start: Callable[[], AbstractContextManager[Host]]
    payload: Payload
    variant: Variant
    model: str
    facts: dict[str, str]
    kernel: KernelModel | None = None  # the model before a host has booted; None: the kernel is not known before
    difference: Difference | None = None  # of the kernel's source from what the model was made from, where it is known


def find_variants(request: Request) -> dict[str, str]:
    """The variant of each kernel of the request, by the name that was given; builds nothing.

    :raise CatalogError: a kernel does not exist.
    :raise ModelError: what a kernel does is not described.
    :raise UsageError: the kind of host cannot be had, or cannot have these kernels.
    """
    place = request.place
    place.kind.check()
    if request.guest_kernel:
        request.kernel(request.guest_kernel)
    if place.boots:
        for name in request.kernels:
            require_model(request.kernel(name))
        return {name: request.kernel(name).variant for name in request.kernels}
    own = place.own()
    if len(request.kernels) > 1:
        raise UsageError(
            f"--host {request.host} has one kernel, the one that it runs, so {' and '.join(request.kernels)} cannot be"
            " asked for together",
            hint="name the one that runs there, or none; `apf validate --baseline RUN` compares it with an earlier run",
        )
    for name in request.kernels:
        require_model(request.kernel(name))
        return {name: request.kernel(name).variant}
    return {own.label: own.variant}


def find_setup(
    store: Store, name: str, jobs: Sequence[Job], request: Request, folder: RunFolder, observer: Observer
) -> HostSetup:
    """Build or find what the host needs.

    :raise ApfError: something cannot be built, or this machine cannot do it.
    """
    place = request.place
    linux = any(job.scenario.guest.kind is GuestKind.LINUX for job in jobs)
    asked = place.boots or name in request.kernels
    kernel = built_kernel.kernel(store, request.kernel(name), observer.progress) if asked else None
    if kernel is not None:
        require_model_of_built(name, kernel.variant, kernel.version or kernel.release)
    guest: BuiltKernel | None = None
    if linux:
        other = request.guest_kernel or ("" if kernel is not None else _LOCAL_GUEST_KERNEL)
        guest = built_kernel.kernel(store, request.kernel(other), observer.progress) if other else kernel
    programs = {j.scenario.guest.workload for j in jobs if j.scenario.guest.kind is GuestKind.HOST_PROGRAM}
    payload = replace(
        _payload(store, guest), programs={name: images.host_program(store, name) for name in sorted(programs)}
    )
    wanted = (name, banner_of(kernel.bzimage)) if kernel is not None and not place.boots else None
    order = HostOrder(
        store, kernel, payload, lambda: folder.console(name), observer.progress,
        disk=request.disk, name=place.name, lab=place.lab, wanted=wanted, wait_s=request.wait_s,
        host_qemu=request.host_qemu, guest_qemu=request.guest_qemu,
    )  # fmt: skip
    opener = place.kind.prepare(order)
    facts = dict(opener.facts)
    difference: Difference | None = None
    if kernel is not None:
        facts = {f"{name} release": kernel.release, f"{name} made from": kernel.identity} | facts
        if guest is not None and guest is not kernel:
            facts[f"{name} guest"] = f"{guest.release} ({guest.identity})"
        observer.line(f"{name}: {kernel.release}, {', '.join(opener.facts.values())}")
        difference = citations.left_in(kernel.bzimage.parent)
        if difference is not None:
            facts[f"{name} source"] = str(difference)
            observer.line(f"{name}: {difference}")
    model = kernel if kernel is not None else place.own()
    variant, fixes = Variant(model.variant), model.fixes
    described = with_fixes(kernel_for(variant, kernel.version or kernel.release), fixes) if kernel is not None else None
    return HostSetup(opener.start, payload, variant, "+".join((variant, *fixes)), facts, described, difference)


def running_build(request: Request, observer: Observer) -> str:
    """``uname -v`` of the kernel that the host has; empty: it boots what it is asked for, or does not tell."""
    place = request.place
    if place.boots:
        return ""
    store = Store(progress=observer.progress)
    order = HostOrder(
        store, None, _payload(store, None), Path, observer.progress, name=place.name, lab=place.lab
    )  # fmt: skip
    try:
        return place.kind.prepare(order).facts.get(f"{place.own().label} kernel", "")
    except ApfError:
        return ""  # what is wrong is told by what is performed there


def _payload(store: Store, guest: BuiltKernel | None) -> Payload:
    payload = Payload(images.agent_zipapp(store), images.probe_guest(store))
    if guest is None:
        return payload
    return replace(payload, guest_kernel=guest.bzimage, guest_initrd=images.linux_guest_initramfs(store, guest))
