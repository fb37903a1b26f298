# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels, from a catalogue entry to files in the store."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.catalog import CatalogKernel, SourceKind, find_kernel
from harness.artifacts.debian.deb import extract
from harness.artifacts.debian.packages import Packages, with_packages
from harness.artifacts.images.modules import closure
from harness.artifacts.images.recipes import host_recipe
from harness.artifacts.kernels import builder
from harness.artifacts.store import Recipe, Store
from harness.errors import CatalogError, Unsupported
from harness.progress import Progress, silent

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
        return with_packages(store, entry.suite, progress, lambda packages: _packaged(store, entry, packages, progress))
    if entry.source is SourceKind.BZIMAGE:
        return _ready(store, entry)
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
        cmdline=entry.cmdline,
        identity=identity,
    )


def _packaged(store: Store, entry: CatalogKernel, packages: Packages, progress: Progress) -> BuiltKernel:
    images = [package for package in packages.resolve([entry.package]) if re.match(r"linux-image-\d", package.name)]
    if len(images) != 1:
        raise Unsupported(f"{entry.id}: {entry.package} of {entry.suite} does not lead to one linux-image package")
    wanted = [*host_recipe().modules, *host_recipe().guest_modules]
    recipe = Recipe("kernel", {"version": 1, "package": images[0].identity(), "modules": wanted})

    def build(folder: Path) -> None:
        (deb,) = packages.download(images)
        progress(f"unpacking {images[0].name}")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            tree = Path(scratch)
            extract(deb, tree, lambda path: path.startswith(("boot/", "usr/lib/modules/")))
            (bzimage,) = (tree / "boot").glob("vmlinuz-*")
            (config,) = (tree / "boot").glob("config-*")
            shutil.copyfile(bzimage, folder / "bzImage")
            shutil.copyfile(config, folder / "config")
            (folder / "modules").mkdir()
            for _, path in closure(tree / "usr/lib/modules", wanted):
                shutil.copyfile(path, folder / "modules" / path.name)

    folder = store.get(recipe, build)
    return _built(entry, folder, f"{images[0].name} {images[0].version}", modules=True)


def _ready(store: Store, entry: CatalogKernel) -> BuiltKernel:
    assert entry.path is not None
    if not entry.path.is_file():
        raise CatalogError(f"{entry.id}: there is no file {entry.path}")
    source = entry.path
    banner_of(source)
    recipe = Recipe("kernel", {"version": 1, "bzimage": layout.digest([source], source.parent)})

    def build(folder: Path) -> None:
        shutil.copyfile(source, folder / "bzImage")

    return _built(entry, store.get(recipe, build), f"{source} {recipe.key[:12]}", modules=False)
