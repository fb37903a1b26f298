# SPDX-License-Identifier: GPL-2.0-or-later
"""The images that hosts and guests boot from."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.command import command, tool_version
from harness.artifacts.debian.deb import extract
from harness.artifacts.debian.packages import Packages, identities, with_packages
from harness.artifacts.images import ext4, rootfs
from harness.artifacts.images.agentzip import agent_zipapp
from harness.artifacts.images.cpio import Cpio
from harness.artifacts.images.keys import host_keys
from harness.artifacts.images.modules import closure, contents
from harness.artifacts.images.recipes import ImageRecipe, host_recipe
from harness.artifacts.kernels.built_kernel import BuiltKernel
from harness.artifacts.store import Recipe, Store
from harness.progress import Progress, silent

__all__ = [
    "HostImage", "agent_zipapp", "host_image", "host_in_memory", "host_initramfs", "linux_guest_initramfs",
    "probe_guest",
]  # fmt: skip

_HOST = layout.GUEST_IMAGES / "host"
_LINUX = layout.GUEST_IMAGES / "linux"
_PROBE = layout.GUEST_IMAGES / "probe"


@dataclass(frozen=True, slots=True)
class HostImage:
    """The virtual host's root file system (read-only), and how to get in."""

    root_ext4: Path
    ssh_host_public_key: str  # "ssh-ed25519 AAAA...", to be pinned
    ssh_client_key: Path  # private key, OpenSSH format, for root
    qemu_version: str  # the Debian version of the QEMU in it


def host_image(store: Store, progress: Progress = silent, suite: str = "") -> HostImage:
    """The root file system of the virtual host.

    :param suite: the Debian release it is made of, whose QEMU runs the guests; empty: the recipe's.
    :raise Unsupported: the machine's mirrors do not offer the packages.
    :raise BuildFailed: a step of the build failed.
    """
    recipe = replace(host_recipe(), suite=suite) if suite else host_recipe()
    return with_packages(store, recipe.suite, progress, lambda packages: _host_image(store, recipe, packages, progress))


def _host_image(store: Store, recipe: ImageRecipe, packages: Packages, progress: Progress) -> HostImage:
    chosen = tuple(entry for entry in packages.resolve(recipe.packages) if entry.name not in recipe.without)
    sources = [Path(rootfs.__file__), Path(ext4.__file__)]
    key = Recipe(
        "host-image",
        {"recipe": recipe.inputs(), "packages": identities(chosen), "code": layout.digest(sources, layout.HARNESS)},
    )

    def build(folder: Path) -> None:
        debs = packages.download(chosen)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            tree = Path(scratch) / "root"
            tree.mkdir()
            for number, deb in enumerate(debs):
                progress("unpacking the host image's packages", number / len(debs))
                extract(deb, tree, recipe.wants)
            progress("finishing the host image")
            rootfs.finish(tree)
            ext4.make(tree, folder / "root.ext4", label="apf-host")

    folder = store.get(key, build)
    keys = host_keys(store)
    qemu = next(entry.version for entry in chosen if entry.name == "qemu-system-x86")
    return HostImage(folder / "root.ext4", keys.host_public, keys.client_private, qemu)


def host_initramfs(store: Store, kernel: BuiltKernel) -> Path:
    """The initial RAM file system of a virtual host with this kernel: modules, scripts, keys, busybox."""
    keys = host_keys(store)
    busybox = _busybox(store)
    scripts = [_HOST / name for name in ("initramfs-init", "init", "inittab", "minder")]
    modules = closure(kernel.modules, host_recipe().modules) if kernel.modules else []
    recipe = Recipe(
        "host-initramfs",
        {
            "busybox": layout.digest([busybox], busybox.parent),
            "scripts": layout.digest(scripts, _HOST),
            "modules": [[name, layout.digest([path], path.parent)] for name, path in modules],
            "keys": [keys.host_public, keys.client_public],
            "version": 1,
        },
    )

    def build(folder: Path) -> None:
        cpio = _skeleton(busybox, modules)
        cpio.file("init", _HOST / "initramfs-init", 0o755)
        cpio.file("apf/init", _HOST / "init", 0o755)
        cpio.file("apf/inittab", _HOST / "inittab")
        cpio.file("apf/minder", _HOST / "minder", 0o755)
        cpio.folder("apf/keys", 0o700)
        cpio.file("apf/keys/host", keys.host_private, 0o600)
        cpio.file("apf/keys/authorized_keys", keys.client_public.encode() + b"\n", 0o600)
        cpio.write(folder / "initramfs.cpio.gz")

    return store.get(recipe, build) / "initramfs.cpio.gz"


def host_in_memory(store: Store, progress: Progress = silent) -> Path:
    """The root file system of the virtual host as an archive that follows host_initramfs(): a machine that boots both
    needs no disk.

    :raise Unsupported, BuildFailed: see host_image().
    """
    root = host_image(store, progress).root_ext4

    def build(folder: Path) -> None:
        progress("packing the host image")
        cpio = Cpio()
        cpio.file("root.ext4", root)
        cpio.write(folder / "root.cpio.gz")

    return store.get(Recipe("host-in-memory", {"image": root.parent.name, "version": 1}), build) / "root.cpio.gz"


def linux_guest_initramfs(store: Store, kernel: BuiltKernel) -> Path:
    """The initial RAM file system of a Linux guest with this kernel: guest-images/linux, busybox, modules.

    :raise BuildFailed: the workload does not compile.
    """
    busybox = _busybox(store)
    programs = sorted(_LINUX.glob("*.c"))
    sources = [_LINUX / "init", *programs, *sorted(_LINUX.glob("*.h"))]
    modules = closure(kernel.modules, host_recipe().guest_modules) if kernel.modules else []
    compiler = ["gcc", "-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-static", "-s", "-Wl,--build-id=none"]
    recipe = Recipe(
        "linux-guest",
        {
            "busybox": layout.digest([busybox], busybox.parent),
            "sources": layout.digest(sources, _LINUX),
            "modules": [[name, layout.digest([path], path.parent)] for name, path in modules],
            "compiler": [*compiler, tool_version("gcc")],
            "version": 1,
        },
    )

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            program = Path(scratch) / "workload"
            command([*compiler, "-o", program, *programs], cwd=_LINUX)
            cpio = _skeleton(busybox, modules)
            cpio.file("init", _LINUX / "init", 0o755)
            cpio.file("bin/workload", program, 0o755)
            cpio.write(folder / "initramfs.cpio.gz")

    return store.get(recipe, build) / "initramfs.cpio.gz"


def probe_guest(store: Store) -> Path:
    """The freestanding probe guest, an ELF image for QEMU's -kernel.

    A machine without a compiler takes what a store that was copied to it has, made from the same sources.

    :raise BuildFailed: it does not compile.
    """
    sources = [path for path in _PROBE.iterdir() if path.is_file()]
    inputs = {"sources": layout.digest(sources, _PROBE)}
    brought = store.brought("probe-guest", inputs) if shutil.which("gcc") is None else None
    if brought is not None:
        return brought / "probe.elf"
    recipe = Recipe("probe-guest", {**inputs, "compiler": [tool_version("gcc"), tool_version("ld")]})

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            command(["make", "-s", "-C", _PROBE, f"OUT={scratch}"])
            (Path(scratch) / "probe.elf").rename(folder / "probe.elf")

    return store.get(recipe, build) / "probe.elf"


def host_program(store: Store, name: str) -> Path:
    """A program of reproducers/, static, so that it runs on any host.

    :raise BuildFailed: it does not compile.
    """
    source = layout.REPRODUCERS / f"{name}.c"
    read = [source, *layout.REPRODUCERS.glob("*.h")]
    compiler = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-static", "-s", "-Wl,--build-id=none"]
    recipe = Recipe(
        "host-program",
        {"source": layout.digest(read, layout.REPRODUCERS), "compiler": [*compiler, tool_version("gcc")]},
    )

    def build(folder: Path) -> None:
        command([*compiler, "-o", folder / name, source.name], cwd=layout.REPRODUCERS)

    return store.get(recipe, build) / name


def _busybox(store: Store) -> Path:
    """busybox-static's program, unpacked."""
    return with_packages(store, host_recipe().suite, silent, lambda packages: _unpack_busybox(store, packages))


def _unpack_busybox(store: Store, packages: Packages) -> Path:
    chosen = tuple(entry for entry in packages.resolve(["busybox-static"]) if entry.name == "busybox-static")

    def build(folder: Path) -> None:
        (deb,) = packages.download(chosen)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            extract(deb, Path(scratch), lambda path: path == "usr/bin/busybox")
            (Path(scratch) / "usr/bin/busybox").rename(folder / "busybox")

    return store.get(Recipe("busybox", {"packages": identities(chosen)}), build) / "busybox"


def _skeleton(busybox: Path, modules: list[tuple[str, Path]]) -> Cpio:
    """What every initial RAM file system of ours has."""
    cpio = Cpio()
    for name in ("dev", "proc", "sys", "bin", "sbin"):
        cpio.folder(name)
    cpio.character_device("dev/console", 5, 1)
    cpio.character_device("dev/null", 1, 3, 0o666)
    cpio.file("bin/busybox", busybox, 0o755)
    cpio.link("bin/sh", "busybox")
    for name, path in modules:
        cpio.file(f"apf/modules/{name}.ko", contents(path))
    cpio.file("apf/modules/order", "".join(f"{name}.ko\n" for name, _ in modules).encode())
    return cpio
