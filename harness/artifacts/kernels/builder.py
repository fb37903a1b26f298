# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels from source, into the store.

Work that can go on after an interruption is in the store's work area, one folder per source and configuration:

    base/           a finished build without patches {src, obj}
    tree/           the build that is going on; tree/stage says which and how far
    objects         how many objects the base has

Every build takes place in tree/, because build systems write down where they were: a finished base moves to base/, and
a patched kernel starts from a copy of it that is back in tree/, so that make finds only the patched files changed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.catalog import CatalogKernel, SourceKind
from harness.artifacts.command import tool_version
from harness.artifacts.debian.packages import Package, Packages, with_packages
from harness.artifacts.kernels import (
    citations,
    head_start,
    kbuild,
    kernel_source,
    mutation_points,
    mutation_targets,
    mutations,
    patches,
)
from harness.artifacts.store import Recipe, Store, Work, remove
from harness.errors import BuildFailed, CatalogError
from harness.progress import Progress

_VERSION = 1
_KEPT_BASES, _KEPT_TREES = 3, 2
"""How many work folders stay, those last used; one takes up to 3 GB.  Trees do not drive out bases: a tree and its base
revision are two."""
_TREES = "kbuild-tree-"


def build(store: Store, entry: CatalogKernel, progress: Progress) -> tuple[Path, str]:
    """The store's folder with bzImage, config, System.map and build.log; and what it was made from, for people.

    :raise CatalogError: a tree cannot be read, or patches are missing.
    :raise BuildFailed: a patch does not apply, the configuration does not take, or the compiler complains.
    :raise InfraFault: a tool is missing, or there is no space.
    """
    kbuild.check_tools()
    store.trim_work("kbuild-", _KEPT_BASES, but=_TREES)
    store.trim_work(_TREES, _KEPT_TREES)
    series = patches.expand(entry.patches)
    if entry.source is SourceKind.LINUX_SOURCE:
        return with_packages(
            store, entry.suite, progress, lambda packages: _from_package(store, entry, series, packages, progress)
        )
    return _from_tree(store, entry, series, progress)


def _inputs(entry: CatalogKernel) -> dict[str, object]:
    """What decides a build besides its source and patches."""
    config = [layout.digest([path], path.parent) for path in entry.config]
    return {"version": _VERSION, "config": config, "tools": [tool_version("gcc"), tool_version("ld")]}


def _source_inputs(entry: CatalogKernel, found: Sequence[Package]) -> dict[str, object]:
    (source,) = (package for package in found if package.name == entry.package)
    return {**_inputs(entry), "source": source.identity()}


def package_recipe(entry: CatalogKernel, found: Sequence[Package]) -> Recipe:
    """What decides a kernel that is built from a package of ``found``."""
    patched = [layout.digest([path], path.parent) for path in patches.expand(entry.patches)]
    named = {"name": entry.id, "patches": patched, **_mutations(entry)}
    return Recipe("kernel", {**_source_inputs(entry, found), **named})


def _from_package(
    store: Store, entry: CatalogKernel, series: Sequence[Path], packages: Packages, progress: Progress
) -> tuple[Path, str]:
    found = packages.build_of(entry.package)
    (source,) = (package for package in found if package.name == entry.package)
    work_name = f"kbuild-{Recipe('kbuild', _source_inputs(entry, found)).key[:16]}"
    identity = f"{source.name} {source.version}"
    if series:
        identity += f" with {', '.join(path.name for path in series)}"
    recipe = package_recipe(entry, found)

    def make(folder: Path) -> None:
        with store.work(work_name) as work, store.lock("kbuild"):
            tree = work.folder / "tree"
            if not (work.folder / "base").is_dir():
                _build_base(work, packages, source, entry, series, progress)
            if not series and entry.mutate is None:
                _collect(work.folder / "base", folder)
                return
            _start_from_base(work.folder, recipe.key, series, source, entry.mutate, progress)
            kbuild.build(tree, entry.id, localversion=_local(entry), expected=None, progress=progress, lock=work.lock)
            _collect(tree, folder)
            remove(tree)

    folder = store.get(recipe, make)
    return folder, identity + _points(folder)


def _points(folder: Path) -> str:
    """What numbers of points mean, for a kernel that has some."""
    path = folder / mutation_points.POINTS
    return f" with the points {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}" if path.is_file() else ""


def _build_base(
    work: Work, packages: Packages, source: Package, entry: CatalogKernel, series: Sequence[Path], progress: Progress
) -> None:
    """Unpack, configure and build the unpatched kernel; goes on where an interrupted call stopped.

    :param series: to be applied to it later; one that does not apply is told before the build takes its minutes.
    """
    tree = work.folder / "tree"
    stage = _stage(tree)
    if stage not in ("base unpacked", "base configured"):
        _clear(tree)
        (deb,) = packages.download([source])
        progress(f"unpacking {source.name}")
        kernel_source.unpack(deb, tree / "src")
        stage = _set_stage(tree, "base unpacked")
    patches.try_on(tree / "src", series, f"{source.name} {source.version}")
    if stage == "base unpacked":
        progress(f"configuring {source.name}")
        kbuild.configure(tree, entry.config, strict=True, progress=progress)
        _set_stage(tree, "base configured")
    counted = work.folder / "objects"
    expected = int(counted.read_text()) if counted.is_file() else None
    outcome = kbuild.build(
        tree, f"the base of {entry.id}", localversion="-apf", expected=expected, progress=progress, lock=work.lock
    )
    # After an interruption only the rest was counted.
    counted.write_text(str(max(outcome.objects, expected or 0)))
    tree.rename(work.folder / "base")


def _start_from_base(
    work: Path, key: str, series: Sequence[Path], source: Package, mutate: Path | None, progress: Progress
) -> None:
    """Make tree/ a patched and mutated copy of base/, unless an interrupted call has done so."""
    tree = work / "tree"
    if _stage(tree) == key:
        return
    _clear(tree)
    tree.rmdir()
    progress("copying the base build")
    kernel_source.clone(work / "base", tree)
    patches.apply(tree / "src", series, f"{source.name} {source.version}")
    _mutate(tree, mutate)
    _set_stage(tree, key)


def _mutations(entry: CatalogKernel) -> dict[str, object]:
    """What decides the points of a kernel with mutants; nothing for any other."""
    if entry.mutate is None:
        return {}
    targets = mutation_targets.load_targets(entry.mutate)
    code = [Path(mutations.__file__), Path(mutation_points.__file__)]
    return {
        "mutate": {
            "files": list(targets.files),
            "functions": dict(targets.functions),
            "code": layout.digest(code, layout.REPOSITORY),
        }
    }


def _mutate(tree: Path, targets: Path | None) -> None:
    """Put the points into the sources and list them beside."""
    if targets is None:
        return
    points = mutations.apply(tree / "src", mutation_targets.load_targets(targets))
    (tree / mutation_points.POINTS).write_text(mutation_points.to_json(points))


def _from_tree(store: Store, entry: CatalogKernel, series: Sequence[Path], progress: Progress) -> tuple[Path, str]:
    assert entry.path is not None
    source = entry.path
    progress(f"reading {source}")
    state = (
        kernel_source.inspect(source) if not entry.revision else kernel_source.inspect_revision(source, entry.revision)
    )
    if state.dirty:
        progress(f"note: {state.name}")
    recipe = Recipe(
        "kernel",
        {
            **_inputs(entry),
            "tree": state.digest,
            "name": entry.id,
            "patches": [layout.digest([path], path.parent) for path in series],
            **_mutations(entry),
        },
    )
    # A revision and what is checked out have a build each: one does not undo the other's objects.
    place: dict[str, object] = {"path": str(source)} | ({"revision": True} if entry.revision else {})
    work_name = f"{_TREES}{Recipe('tree', {**place, **_inputs(entry)}).key[:16]}"

    def make(folder: Path) -> None:
        with store.work(work_name) as work, store.lock("kbuild"):
            tree = work.folder / "tree"
            if entry.revision:
                checkout = work.folder / "revision"
                _clear(checkout)
                kernel_source.checkout(source, state.commit, checkout)
                _head_start(store, checkout, tree, progress)
                kernel_source.mirror(checkout, kernel_source.files_of(checkout), tree / "src")
                remove(checkout)
            else:
                _head_start(store, source, tree, progress)
                kernel_source.copy_of(state, source, tree / "src")
            patches.apply(tree / "src", series, state.name)
            _mutate(tree, entry.mutate)
            progress(f"configuring {source}")
            kbuild.configure(tree, entry.config, strict=False, progress=progress)
            kbuild.build(tree, entry.id, localversion=_local(entry), expected=None, progress=progress, lock=work.lock)
            _collect(tree, folder)

    return store.get(recipe, make), state.name


def _head_start(store: Store, source: Path, tree: Path, progress: Progress) -> None:
    """Before ``source`` is copied to tree/src: the first time with objects of a base of its series, if there is one."""
    if taken := head_start.take(store.root / "work", tree, source):
        progress(f"starting from what is built of {taken}")
    progress(f"copying {source}")


def _collect(tree: Path, folder: Path) -> None:
    """Copy what a host needs, and what a person may want to look at, from a finished build."""
    for source, name in (
        ("obj/arch/x86/boot/bzImage", "bzImage"),
        ("obj/.config", "config"),
        ("obj/System.map", "System.map"),
        ("build.log", "build.log"),
    ):
        try:
            shutil.copyfile(tree / source, folder / name)
        except FileNotFoundError as error:
            raise BuildFailed(f"the build in {tree} ended well but made no {source}") from error
    citations.leave(tree / "src", folder)
    if (tree / mutation_points.POINTS).is_file():
        shutil.copyfile(tree / mutation_points.POINTS, folder / mutation_points.POINTS)


def _local(entry: CatalogKernel) -> str:
    """What uname -r shows after the version, so that a booted kernel can be told from another."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", entry.id)
    if not name:
        raise CatalogError("a kernel needs a name")
    return f"-apf-{name}"[:40]


def _stage(tree: Path) -> str:
    path = tree / "stage"
    return path.read_text() if path.is_file() else ""


def _set_stage(tree: Path, stage: str) -> str:
    draft = tree / "stage.new"
    draft.write_text(stage)
    draft.replace(tree / "stage")
    return stage


def _clear(folder: Path) -> None:
    """Make the folder an empty one."""
    if folder.exists():
        remove(folder)
    folder.mkdir(parents=True)
