# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel source trees: Debian's archive unpacked, or a tree of the user's mirrored, which itself is never written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts.command import command
from harness.artifacts.debian.deb import extract
from harness.errors import BuildFailed, CatalogError

# Not read when a kernel for x86 is built; Kconfig files of other architectures are.
_OTHER_ARCHITECTURES = (
    *("alpha", "arc", "arm", "arm64", "csky", "hexagon", "ia64", "loongarch", "m68k", "microblaze", "mips"),
    *("nios2", "openrisc", "parisc", "powerpc", "riscv", "s390", "sh", "sparc", "um", "xtensa"),
)
_UNNEEDED = (
    "*/Documentation/*/*",
    *(f"*/arch/{name}/*.{end}" for name in _OTHER_ARCHITECTURES for end in ("c", "h", "S", "dts", "dtsi")),
)


# A tree of another user's is still only read.
_GIT = ("git", "-c", "safe.directory=*")


def unpack(deb: Path, folder: Path) -> None:
    """The source tree of a linux-source package as ``folder``, which must not exist.

    :raise BuildFailed: the package has another shape.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        extract(deb, Path(scratch), lambda path: path.startswith("usr/src/linux-source-") and ".tar." in path)
        archives = list(Path(scratch).glob("usr/src/linux-source-*.tar.*"))
        if len(archives) != 1:
            raise BuildFailed(f"{deb.name}: holds {len(archives)} source archives, not one")
        tree = Path(scratch) / "tree"
        tree.mkdir()
        excluded = [f"--exclude={pattern}" for pattern in _UNNEEDED]
        command(["tar", "-x", "--strip-components=1", "--no-same-owner", "-C", tree, *excluded, "-f", archives[0]])
        tree.rename(folder)


@dataclass(frozen=True, slots=True)
class TreeState:
    """What a user's tree contains: a digest, a name for people, the files, and of a git revision the commit."""

    digest: str
    name: str
    dirty: bool
    files: tuple[str, ...]
    commit: str = ""


def inspect(tree: Path) -> TreeState:
    """What is in a user's tree: of a git tree the tracked files as they are now, of any other all files.

    :raise CatalogError: it cannot be read.
    """
    try:
        next(tree.iterdir())
    except (OSError, StopIteration) as error:
        raise CatalogError(f"the kernel tree {tree} cannot be read: {error}") from error
    if (tree / ".git").exists():
        return _inspect_git(tree)
    files = files_of(tree)
    digest = _digest(tree, files)
    return TreeState(digest, f"{tree} ({digest[:12]}, no git)", False, files)


def copy_of(state: TreeState, tree: Path, copy: Path) -> None:
    """Make ``copy`` hold what ``state`` says of ``tree``.

    :raise CatalogError: the tree is no longer what it was when ``state`` was taken, as somebody has edited it since: a
        build of what is there now must not be kept under the other's digest.
    """
    mirror(tree, state.files, copy)
    if inspect(tree).digest != state.digest:
        raise CatalogError(
            f"the kernel tree {tree} was changed while its build was prepared; nothing was built: run the command again"
        )


def files_of(tree: Path) -> tuple[str, ...]:
    """All files below a folder, by their paths relative to it."""
    found = []
    for folder, folders, names in os.walk(tree, onerror=_unreadable):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found += [str(Path(folder, name).relative_to(tree)) for name in [*names, *links]]
    return tuple(sorted(found))


def mirror(tree: Path, files: Iterable[str], copy: Path) -> int:
    """Make ``copy`` hold exactly these files of ``tree``; what is equal stays untouched, also its time.

    Returns how many files changed.  Changed files get the time of now, so that make sees them whatever their history.
    """
    copy.mkdir(parents=True, exist_ok=True)
    index_path = copy.parent / f"{copy.name}.index"
    index: dict[str, list[int]] = json.loads(index_path.read_text()) if index_path.is_file() else {}
    fresh: dict[str, list[int]] = {}
    changed = 0
    names = list(files)
    for name in set(index) - set(names):  # first: a file may have become a folder, or a folder a file
        _remove(copy, name)
        changed += 1
        del index[name]
    for name in names:
        source, target = tree / name, copy / name
        try:
            stamp = [*_stamp(source), *_stamp(target)]
        except FileNotFoundError:
            stamp = []
        if not stamp or index.get(name) != stamp:
            changed += _renew(source, target)
        if source.exists() or source.is_symlink():
            fresh[name] = [*_stamp(source), *_stamp(target)]
    for name in set(index) - set(fresh):
        _remove(copy, name)
        changed += 1
    draft = index_path.with_suffix(".new")
    draft.write_text(json.dumps(fresh))
    draft.replace(index_path)
    return changed


def _remove(copy: Path, name: str) -> None:
    """A file of the copy, and the folders that held nothing else."""
    target = copy / name
    target.unlink(missing_ok=True)
    for folder in target.relative_to(copy).parents[:-1]:
        try:
            (copy / folder).rmdir()
        except OSError:
            break


def forget_stamps(copy: Path) -> None:
    """Have the next mirror() compare every file that is in ``copy`` by its content, and remove what is not meant."""
    (copy.parent / f"{copy.name}.index").write_text(json.dumps({name: [] for name in files_of(copy)}))


def _inspect_git(tree: Path) -> TreeState:
    def git(*words: str) -> str:
        return command([*_GIT, "-C", tree, *words], env={"GIT_OPTIONAL_LOCKS": "0"})

    try:
        head = git("rev-parse", "--verify", "HEAD").strip()
        content = git("rev-parse", "HEAD^{tree}").strip()
        difference = git("diff", "--binary", "HEAD")
        listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        untracked = git("ls-files", "-z", "--others", "--exclude-standard")
    except BuildFailed as error:
        raise CatalogError(f"the kernel tree {tree} cannot be read: {error.message}") from error
    files = tuple(sorted({name for name in listed.split("\0") if name}))
    extra = tuple(name for name in untracked.split("\0") if name)
    if not difference and not extra:
        return TreeState(f"git:{content}", f"{tree} at {head[:12]}", False, files)
    change = hashlib.sha256(difference.encode() + _digest(tree, extra).encode()).hexdigest()
    name = f"{tree} at {head[:12]} with uncommitted changes ({change[:12]})"
    return TreeState(f"git:{content}+{change}", name, True, files)


def _digest(tree: Path, files: Iterable[str]) -> str:
    total = hashlib.sha256()
    for name in files:
        path = tree / name
        try:
            data = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        except OSError as error:
            raise CatalogError(f"the kernel tree {tree} cannot be read: {error}") from error
        total.update(f"{name}\0{len(data)}\0".encode() + data)
    return total.hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_size, status.st_mtime_ns


def _renew(source: Path, target: Path) -> bool:
    """Make ``target`` what ``source`` is; False if it was so already."""
    if source.is_symlink():
        if target.is_symlink() and os.readlink(target) == os.readlink(source):
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(os.readlink(source))
        return True
    if not source.is_file():  # tracked by git, and deleted in the work tree
        target.unlink(missing_ok=True)
        return True
    try:
        data = source.read_bytes()
    except PermissionError as error:
        raise CatalogError(f"the kernel source {source} cannot be read: {error}") from error
    if target.is_file() and not target.is_symlink() and target.read_bytes() == data:
        target.chmod(source.stat().st_mode | 0o200)
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # it may be a hard link to another tree's
    target.write_bytes(data)
    shutil.copymode(source, target)
    target.chmod(target.stat().st_mode | 0o200)
    return True


def _unreadable(error: OSError) -> None:
    raise CatalogError(f"the kernel tree cannot be read: {error}") from error


def clone(tree: Path, copy: Path) -> None:
    """A copy of a built tree {src, obj}: sources by hard links, objects copied, all times kept.

    Sources may share their files because patch(1) and mirror() write new files; the build writes objects in place.
    """
    copy.mkdir(parents=True)
    command(["cp", "-al", tree / "src", copy / "src"])
    command(["cp", "-a", tree / "obj", copy / "obj"])


def inspect_revision(tree: Path, name: str) -> TreeState:
    """What is in a git revision of a user's tree, whatever is checked out.

    :raise CatalogError: there is no such revision.
    """
    try:
        commit = command([*_GIT, "-C", tree, "rev-parse", "--verify", f"{name}^{{commit}}"]).strip()
        content = command([*_GIT, "-C", tree, "rev-parse", f"{commit}^{{tree}}"]).strip()
    except BuildFailed as error:
        raise CatalogError(f"{tree} has no revision {name!r}") from error
    return TreeState(f"git:{content}", f"{tree} at {commit[:12]}", False, (), commit)


def checkout(tree: Path, name: str, folder: Path) -> None:
    """Put the files of a git revision of ``tree`` into ``folder``.

    :raise CatalogError: it cannot be read.
    """
    with subprocess.Popen([*_GIT, "-C", str(tree), "archive", name], stdout=subprocess.PIPE) as archive:
        unpacked = subprocess.run(["tar", "-x", "-C", str(folder)], stdin=archive.stdout, check=False)
    if archive.returncode != 0 or unpacked.returncode != 0:
        raise CatalogError(f"{tree}: revision {name} cannot be read")
