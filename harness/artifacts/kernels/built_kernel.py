# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels, from a catalogue entry to files in the store."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.catalog import CatalogKernel, SourceKind, find_kernel, offered_entry
from harness.artifacts.debian import offered_kernels
from harness.artifacts.debian.packages import Package, Packages, identities, with_packages
from harness.artifacts.images.modules import closure
from harness.artifacts.images.recipes import host_recipe
from harness.artifacts.kernels import builder, kernel_package
from harness.artifacts.store import Recipe, Store
from harness.errors import CatalogError, Unsupported
from harness.progress import Progress, silent

_NAMES_ONLY_BYTES = 4096
"""A smaller package holds no part of a kernel, it only needs those that do."""
__all__ = ["BuiltKernel", "find_kernel", "kernel"]


@dataclass(frozen=True, slots=True)
class BuiltKernel:
    """A kernel that can be booted; ``modules`` holds the modules a host may need, None where all is built in."""

    id: str
    bzimage: Path
    modules: Path | None
    release: str  # as uname -r says
    version: str  # the upstream version, e.g. "6.1.192", also where uname -r hides it
    variant: str  # "sync", "noio", "nowait": selects the model
    config: Path | None  # its .config, where known
    fixes: tuple[str, ...] = ()  # findings of which it has the fix: selects the model, too
    cmdline: str = ""  # to be added to the command line of a virtual host
    identity: str = ""  # what it was made from, for reports


def kernel(store: Store, wanted: str | CatalogKernel, progress: Progress = silent) -> BuiltKernel:
    """The kernel with this name, path or catalogue entry, made when the store has none yet.

    :raise CatalogError: there is no such kernel.
    :raise Unsupported: this machine's mirrors do not offer it.
    :raise BuildFailed: it does not build.
    :raise InfraFault: download, tools or space.
    """
    entry = find_kernel(wanted) if isinstance(wanted, str) else wanted
    if entry.source is SourceKind.PACKAGE:
        return _of_package(store, entry, progress)
    if entry.source is SourceKind.BZIMAGE:
        return _ready(store, entry)
    if entry.source is SourceKind.DEB:
        return _of_deb(store, entry)
    folder, identity = builder.build(store, entry, progress)
    return _built(entry, folder, identity, modules=False)


def banner_of(bzimage: Path) -> str:
    """The version string of a bzImage: release, builder, number, and what the distribution adds.

    Documentation/x86/boot.rst: "HdrS" at 0x202, kernel_version at 0x20e, relative to 0x200.

    :raise CatalogError: the file is not a bzImage.
    """
    with bzimage.open("rb") as file:
        head = file.read(0x10000)
    if head[0x202:0x206] != b"HdrS":
        raise CatalogError(f"{bzimage} is not a bzImage: the setup header is missing")
    at = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    return head[at : head.index(b"\0", at)].decode("ascii", "replace")


def _built(entry: CatalogKernel, folder: Path, identity: str, *, modules: bool) -> BuiltKernel:
    """The kernel of a store entry."""
    banner = banner_of(folder / "bzImage")
    # Debian's releases stop at 6.1.0; the version that counts follows the distribution's name.
    version = re.search(r"Debian (\d+\.\d+(?:\.\d+)?)", banner) or re.match(r"(\d+\.\d+(?:\.\d+)?)", banner)
    config = folder / "config"
    return BuiltKernel(
        id=entry.id,
        bzimage=folder / "bzImage",
        modules=folder / "modules" if modules else None,
        release=banner.split(" ")[0],
        version=version[1] if version else "",
        variant=entry.variant,
        config=config if config.is_file() else None,
        fixes=entry.fixes,
        cmdline=entry.cmdline,
        identity=identity,
    )


def _of_package(store: Store, entry: CatalogKernel, progress: Progress) -> BuiltKernel:
    """A packaged kernel; when the mirrors have a newer level of a series meanwhile, that one."""
    try:
        return with_packages(store, entry.suite, progress, lambda packages: _packaged(store, entry, packages, progress))
    except Unsupported:
        if not entry.release:
            raise
        now = offered_kernels.find(store, entry.id, refresh=True, progress=progress)
        if now is None or now.package == entry.package:
            raise
    entry = offered_entry(entry.id, now)
    return with_packages(store, entry.suite, progress, lambda packages: _packaged(store, entry, packages, progress))


def is_stored(store: Store, entry: CatalogKernel) -> bool:
    """Whether a packaged kernel, or one built from Debian's source, can be had without making anything."""
    packages = Packages(store, entry.suite).kept_build(entry.package) if entry.suite else ()
    if not packages:
        return False
    if entry.source is SourceKind.PACKAGE:
        return store.path(_package_recipe(packages)).is_dir()
    return store.path(builder.package_recipe(entry, packages)).is_dir()


def _package_recipe(packages: Sequence[Package]) -> Recipe:
    return Recipe("kernel", {"version": 2, "packages": identities(packages), "modules": _modules()})


def _packaged(store: Store, entry: CatalogKernel, packages: Packages, progress: Progress) -> BuiltKernel:
    # An image may be one package, or (from 7.0 on) one that needs others of its build: linux-binary-, linux-modules-.
    found = packages.build_of(entry.package)
    recipe = _package_recipe(found)

    def build(folder: Path) -> None:
        debs = packages.download([package for package in found if package.size > _NAMES_ONLY_BYTES])
        progress(f"unpacking {entry.package}")
        kernel_package.take_from_debs(debs, _modules(), folder)

    folder = store.get(recipe, build)
    (image,) = [package for package in found if re.match(r"linux-image-\d", package.name)][:1]
    return _built(entry, folder, f"{image.name} {image.version}", modules=True)


def _modules() -> list[str]:
    return [*host_recipe().modules, *host_recipe().guest_modules]


def _ready(store: Store, entry: CatalogKernel) -> BuiltKernel:
    """A bzImage, with the modules that belong to it if there are any."""
    assert entry.path is not None
    source = entry.path
    if not source.is_file():
        raise CatalogError(f"{entry.id}: there is no file {source}")
    modules = kernel_package.modules_folder(source, banner_of(source).split(" ")[0])
    inputs: dict[str, object] = {"version": 1, "bzimage": layout.digest([source], source.parent)}
    if modules is not None:
        files = [path for _, path in closure(modules, _modules())]
        inputs |= {"modules": layout.digest(files, modules), "wanted": _modules()}
    recipe = Recipe("kernel", inputs)

    def build(folder: Path) -> None:
        shutil.copyfile(source, folder / "bzImage")
        if modules is not None:
            kernel_package.take_modules(modules, _modules(), folder)

    identity = f"{source} {recipe.key[:12]}" + (f" with {modules}" if modules is not None else "")
    return _built(entry, store.get(recipe, build), identity, modules=modules is not None)


def _of_deb(store: Store, entry: CatalogKernel) -> BuiltKernel:
    assert entry.path is not None
    debs = kernel_package.with_its_build(entry.path)
    digests = layout.digest(debs, entry.path.parent)
    recipe = Recipe("kernel", {"version": 1, "debs": digests, "modules": _modules()})
    folder = store.get(recipe, lambda draft: kernel_package.take_from_debs(debs, _modules(), draft))
    return _built(entry, folder, f"{entry.path} {digests[entry.path.name][:12]}", modules=True)
