# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that somebody else built: in Debian packages, or as a bzImage with a folder of modules."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.artifacts.command import command
from harness.artifacts.debian.deb import extract
from harness.artifacts.images.modules import closure
from harness.errors import BuildFailed, CatalogError

_SAME_VERSION = re.compile(r"([a-z0-9][a-z0-9+.-]+) \(= ([^)]+)\)")


def take_from_debs(debs: Sequence[Path], modules: Sequence[str], folder: Path) -> None:
    """Put bzImage, config and the wanted modules of a kernel into a folder; its packages may be several.

    :raise BuildFailed: they hold no kernel, or more than one.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        tree = Path(scratch)
        for deb in debs:
            extract(deb, tree, lambda path: path.startswith(("boot/", "usr/lib/modules/")))
        bzimages = [*(tree / "boot").glob("vmlinuz-*"), *(tree / "usr/lib/modules").glob("*/vmlinuz")]
        configs = [*(tree / "boot").glob("config-*"), *(tree / "usr/lib/modules").glob("*/config")]
        if len(bzimages) != 1:
            names = ", ".join(deb.name for deb in debs)
            raise BuildFailed(f"{names}: {len(bzimages)} kernels in there, not one")
        shutil.copyfile(bzimages[0], folder / "bzImage")
        for config in configs[:1]:
            shutil.copyfile(config, folder / "config")
        take_modules(tree / "usr/lib/modules", modules, folder)


def take_modules(tree: Path, wanted: Sequence[str], folder: Path) -> None:
    """Copy the wanted modules below ``tree``, and what they need, into ``folder``/modules."""
    (folder / "modules").mkdir()
    for _, path in closure(tree, wanted):
        shutil.copyfile(path, folder / "modules" / path.name)


def with_its_build(deb: Path) -> list[Path]:
    """A kernel's package, and those beside it in its folder that it needs in exactly its own version.

    :raise CatalogError: it is no package, or one that it needs so is not there.
    """
    there: dict[tuple[str, str], Path] = {}
    found, waiting = [deb], [deb]
    while waiting:
        version, depends = _fields(waiting.pop())
        for name, wanted in _SAME_VERSION.findall(depends):
            if wanted != version:
                continue
            there = there or {_name_and_version(path): path for path in sorted(deb.parent.glob("*.deb"))}
            other = there.get((name, version))
            if other is None:
                raise CatalogError(f"{deb} needs {name} {version}, which is not beside it")
            if other not in found:
                found.append(other)
                waiting.append(other)
    return found


def modules_folder(bzimage: Path, release: str) -> Path | None:
    """Where the modules of a kernel are: beside it as "modules", below lib/modules as they are installed, or the
    machine's own; None where there are none, as for a kernel that has all built in."""
    places = (
        bzimage.parent / "modules",
        bzimage.parent / "lib/modules" / release,
        bzimage.parent.parent / "lib/modules" / release,
        bzimage.parent.parent / "usr/lib/modules" / release,
        Path("/lib/modules") / release,
    )
    return next((place.resolve() for place in places if any(place.rglob("*.ko*"))), None)


def _fields(deb: Path) -> tuple[str, str]:
    """Version and dependencies."""
    try:
        said = command(["dpkg-deb", "-f", deb, "Version", "Depends"])
    except BuildFailed as error:
        raise CatalogError(f"{deb} is not a Debian package: {error.message}") from error
    fields = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    return fields.get("Version", ""), fields.get("Depends", "")


def _name_and_version(deb: Path) -> tuple[str, str]:
    said = command(["dpkg-deb", "-W", "--showformat=${Package} ${Version}", deb])
    name, _, version = said.strip().partition(" ")
    return name, version
