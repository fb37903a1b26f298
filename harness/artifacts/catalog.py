# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that have names (kernels/catalog.toml, and those that the mirrors offer), and kernels named by a path."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.artifacts import layout
from harness.artifacts.debian import offered_kernels
from harness.artifacts.debian.offered_kernels import LATEST, OfferedKernel
from harness.artifacts.store import Store
from harness.errors import CatalogError, InfraFault
from harness.progress import Progress, silent

CATALOG = layout.KERNELS / "catalog.toml"
VARIANTS = ("sync", "noio", "nowait")
RUNNING = "running"
_OFFERED = re.compile(rf"{LATEST}|debian-\d+\.\d+(?:\.\d+)?(?:-rc\d+)?")


class SourceKind(StrEnum):
    """Where a kernel comes from."""

    PACKAGE = "package"  # a linux-image package of a Debian suite
    LINUX_SOURCE = "linux-source"  # Debian's linux-source-<version> package, built by us
    TREE = "tree"  # a kernel source tree of the user's, built by us
    BZIMAGE = "bzimage"  # ready-made, with the modules that lie beside it
    DEB = "deb"  # a package of the user's, with those of its build beside it


@dataclass(frozen=True, slots=True)
class CatalogKernel:
    """One kernel and how it comes about; paths are absolute.

    ``variant`` selects the model ("sync", "noio", "nowait"); ``patches`` names folders below kernels/patches (or single
    files), applied in order; ``config`` the fragments, merged in order.  A patched kernel from a Debian source is built
    incrementally from the same one unpatched.
    """

    id: str
    source: SourceKind
    variant: str = "nowait"
    suite: str = ""
    package: str = ""
    path: Path | None = None
    revision: str = ""
    config: tuple[Path, ...] = ()
    patches: tuple[Path, ...] = ()
    mutate: Path | None = None  # names functions of which every condition and effect can be made wrong
    fixes: tuple[str, ...] = ()  # findings about shipped kernels ("F1") of which it has the fix
    cmdline: str = ""  # added to the command line of a virtual host with this kernel
    about: str = ""
    release: str = ""  # upstream's, of a kernel that was found on the mirrors: "6.18.15", "7.4-rc2"


def load(path: Path = CATALOG) -> dict[str, CatalogKernel]:
    """The catalogue by id.

    :raise CatalogError: all that is wrong in it, at once.
    """
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CatalogError(f"{path}: {error}") from error
    problems: list[str] = []
    found = {}
    for name, entry in raw.items():
        if not isinstance(entry, dict):
            problems.append(f"{name}: not a table")
            continue
        kernel = _entry(name, entry, path.parent, problems)
        if kernel is not None:
            found[name] = kernel
    if problems:
        raise CatalogError("\n".join(f"{path}: {problem}" for problem in problems))
    return found


def find_kernel(
    name: str, catalog: Mapping[str, CatalogKernel] | None = None, *, progress: Progress = silent
) -> CatalogKernel:
    """The kernel with this name, or the source tree, bzImage or .deb at this path (a path has a slash, or exists).

    Names are those of the catalogue, "running" for this machine's own, and "latest", "debian-6.18" or "debian-6.18.5"
    for what the machine's mirrors offer, who are asked for names of that form only.  A tree's variant is taken to be
    "nowait", as upstream is; ``dataclasses.replace`` gives another.

    :raise CatalogError: neither; the message names what comes near.
    """
    known = load() if catalog is None else catalog
    if name in known:
        return known[name]
    if name == RUNNING:
        return _running()
    if _OFFERED.fullmatch(name):
        return _find_offered(name, known, progress)
    path = Path(name).expanduser().absolute()
    if path.is_dir():
        # A kernel tree has its top Makefile and Kconfig; anything else that is a folder is a slip.
        if not (path / "Kconfig").is_file() or not (path / "Makefile").is_file():
            raise CatalogError(f"{path} is not a kernel source tree: it has no Kconfig and Makefile")
        config = tuple(layout.KERNELS / "config" / name for name in ("base.config", "devport.config"))
        return CatalogKernel(path.name, SourceKind.TREE, path=path, config=config)
    if path.is_file():
        source = SourceKind.DEB if path.suffix == ".deb" else SourceKind.BZIMAGE
        return CatalogKernel(path.name, source, path=path)
    if "/" in name:
        raise CatalogError(f"there is no kernel at {path}")
    near = difflib.get_close_matches(name, known, n=1)
    if {*re.split(r"[\s,]+", name)} <= known.keys():
        raise CatalogError(f"there is no kernel {name!r}", hint="each kernel has a --kernel of its own")
    raise CatalogError(
        f"there is no kernel {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        hint=f"known are {', '.join(sorted(known))}, or give the path of a source tree, a bzImage or a .deb",
    )


def _running() -> CatalogKernel:
    """The kernel of this machine, from the file that it was booted from.

    :raise CatalogError: it is not where distributions put it.
    """
    release = os.uname().release
    for path in (Path(f"/boot/vmlinuz-{release}"), Path(f"/lib/modules/{release}/vmlinuz")):
        if path.is_file():
            return CatalogKernel(RUNNING, SourceKind.BZIMAGE, path=path)
    raise CatalogError(f"the kernel of this machine, {release}, is not in /boot nor in /lib/modules")


def offered_entry(name: str, kernel: OfferedKernel) -> CatalogKernel:
    """A kernel that the mirrors offer, as an entry."""
    return CatalogKernel(
        name,
        SourceKind.PACKAGE,
        suite=kernel.suite,
        package=kernel.package,
        about=f"Debian's kernel for virtual machines, {kernel.version} of {kernel.suite}",
        release=kernel.release,
    )


def _find_offered(name: str, known: Mapping[str, CatalogKernel], progress: Progress) -> CatalogKernel:
    try:
        found = offered_kernels.find(Store(progress=progress), name, progress=progress)
        offer = offered_kernels.offer(Store())
    except InfraFault as error:
        raise CatalogError(f"there is no kernel {name!r} in the catalogue, and {error.message}") from error
    if found is None:
        series = ".".join(re.findall(r"\d+", name)[:2])
        lacks = f"; of {series} they lack {offer.lacking[series]}" if series in offer.lacking else ""
        there = ", ".join(sorted({*known, *offer.series()}))
        raise CatalogError(
            f"there is no kernel {name!r}: it is not in the catalogue, and no mirror of this machine offers it{lacks}",
            hint=f"known are {there}; `apf kernels --refresh` asks the mirrors anew",
        )
    return offered_entry(f"debian-{found.series}" if name == LATEST else name, found)


_KEYS: dict[str, type] = {
    "source": str,
    "variant": str,
    "suite": str,
    "package": str,
    "path": str,
    "revision": str,
    "config": list,
    "patches": list,
    "mutate": str,
    "fixes": list,
    "cmdline": str,
    "about": str,
}
_NEEDED = {
    SourceKind.PACKAGE: ("suite", "package"),
    SourceKind.LINUX_SOURCE: ("suite", "package", "config"),
    SourceKind.TREE: ("path", "config"),
    SourceKind.BZIMAGE: ("path",),
    SourceKind.DEB: ("path",),
}


def _entry(name: str, raw: dict[str, Any], folder: Path, problems: list[str]) -> CatalogKernel | None:
    before = len(problems)
    for key, value in raw.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            problems.append(f"{name}.{key}: unknown key" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif not isinstance(value, _KEYS[key]) or (
            isinstance(value, list) and not all(isinstance(item, str) for item in value)
        ):
            problems.append(f"{name}.{key}: must be a {'list of strings' if _KEYS[key] is list else 'string'}")
    if len(problems) > before:
        return None
    if raw.get("source") not in list(SourceKind):
        problems.append(f"{name}.source: must be one of {', '.join(SourceKind)}")
        return None
    source = SourceKind(raw["source"])
    problems += [f"{name}.{key}: missing, source {source} needs it" for key in _NEEDED[source] if not raw.get(key)]
    if raw.get("variant", "nowait") not in VARIANTS:
        problems.append(f"{name}.variant: must be one of {', '.join(VARIANTS)}")
    config = tuple(folder / "config" / item for item in raw.get("config", ()))
    patches = tuple(folder / "patches" / item for item in raw.get("patches", ()))
    mutate = (folder / raw["mutate"],) if raw.get("mutate") else ()
    for key, paths in (("config", config), ("patches", patches), ("mutate", mutate)):
        problems += [f"{name}.{key}: {path} does not exist" for path in paths if not path.exists()]
    if len(problems) > before:
        return None
    return CatalogKernel(
        id=name,
        source=source,
        variant=raw.get("variant", "nowait"),
        suite=raw.get("suite", ""),
        package=raw.get("package", ""),
        path=Path(raw["path"]).expanduser().absolute() if raw.get("path") else None,
        revision=raw.get("revision", ""),
        config=config,
        patches=patches,
        mutate=mutate[0] if mutate else None,
        fixes=tuple(raw.get("fixes", ())),
        cmdline=raw.get("cmdline", ""),
        about=raw.get("about", ""),
    )
