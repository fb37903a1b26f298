# SPDX-License-Identifier: GPL-2.0-or-later
"""A content-addressed store: each entry is a folder named by the sha256 of the recipe that made it.

    <root>/store/<kind>-<key>/    finished entries; they appear by one rename, so they are whole or absent
    <root>/tmp/<kind>-<key>.*/    an entry in the making
    <root>/work/<name>/           long work that can go on after an interruption (kernel builds)
    <root>/locks/<name>.lock      who holds the flock may make the entry or use the work folder

Two runs may share one store: the second waits for the first and finds its result.  A process killed at
any moment leaves a folder in tmp, which whoever gets the lock next removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.errors import BuildFailed, InfraFault
from harness.progress import Progress, silent

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NEARLY_FULL_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what an entry contains; ``inputs`` is plain JSON data."""

    kind: str
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def canonical(self) -> str:
        """The recipe as JSON with one spelling only."""
        return json.dumps({"kind": self.kind, "inputs": self.inputs}, sort_keys=True, separators=(",", ":"))

    @property
    def key(self) -> str:
        """sha256 of the canonical recipe, as 64 hex digits."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @property
    def name(self) -> str:
        """The entry's folder name."""
        return f"{self.kind}-{self.key[:24]}"


@dataclass(frozen=True, slots=True)
class Work:
    """A work folder and the descriptor of the lock on it."""

    folder: Path
    lock: int


def default_root() -> Path:
    """``$XDG_CACHE_HOME/apf``, or ``~/.cache/apf``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification says that relative paths are to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "apf"


class Store:
    """See the module's text.  ``progress`` hears when another run's work is waited for.

    :raise InfraFault: the root cannot be made or written.
    """

    def __init__(self, root: Path | None = None, progress: Progress = silent) -> None:
        self.root = (root or default_root()).absolute()
        self.progress = progress
        with self._space():
            for part in ("store", "tmp", "work", "locks"):
                try:
                    (self.root / part).mkdir(parents=True, exist_ok=True)
                    with tempfile.TemporaryFile(dir=self.root / part):
                        pass
                except (PermissionError, NotADirectoryError, FileExistsError) as error:
                    raise InfraFault(
                        f"the cache folder {self.root} cannot be written: {error}",
                        hint="give another one with XDG_CACHE_HOME",
                    ) from error
        self._remove_stale()

    def path(self, recipe: Recipe) -> Path:
        """Where the entry of ``recipe`` is, or would be."""
        return self.root / "store" / recipe.name

    def get(self, recipe: Recipe, build: Callable[[Path], None]) -> Path:
        """The folder of the entry; ``build`` fills an empty folder when there is none yet.

        The files of an entry are read-only.  When ``build`` raises, nothing is left behind.

        :raise BuildFailed: ``build`` failed (its own error is passed on).
        :raise InfraFault: no space is left.
        """
        final = self.path(recipe)
        if final.is_dir():
            return final
        with self.lock(recipe.name):
            if final.is_dir():
                return final
            with self._space():
                self._make(recipe, build, final)
        return final

    def brought(self, kind: str, inputs: Mapping[str, Any]) -> Path | None:
        """An entry of this kind whose recipe has these inputs, whatever else it has: made on another machine, by tools
        that this one lacks."""
        for folder in sorted((self.root / "store").glob(f"{kind}-*")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                recipe = json.loads((folder / "recipe.json").read_text())
                if recipe["kind"] == kind and all(recipe["inputs"][key] == value for key, value in inputs.items()):
                    return folder
        return None

    @contextlib.contextmanager
    def work(self, name: str) -> Iterator[Work]:
        """A folder that stays after an interruption; one process at a time has it."""
        with self.lock(f"work-{name}") as lock, self._space():
            folder = self.root / "work" / name
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)  # when it was last used, see trim_work
            yield Work(folder, lock)

    def trim_work(self, prefix: str, keep: int, *, but: str | None = None) -> None:
        """Remove the longest unused work folders of this prefix beyond ``keep``; those in use stay.

        :param but: folders whose names begin so are neither counted nor removed.
        """
        folders = [path for path in (self.root / "work").iterdir() if path.name.startswith(prefix)]
        folders = [path for path in folders if but is None or not path.name.startswith(but)]
        last = {folder: _used(folder) for folder in folders}
        for folder in sorted(folders, key=last.__getitem__, reverse=True)[keep:]:
            with (self.root / "locks" / f"work-{folder.name}.lock").open("w") as file:
                # Another process may have removed it meanwhile, or worked in it.
                if _try_lock(file) and folder.exists() and _used(folder) <= last[folder]:
                    self.progress(f"removing old work {folder.name}")
                    remove(folder)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[int]:
        """Hold the lock ``name``; waits without limit for a living holder, and a dead one holds nothing.

        Yields the descriptor that holds it: a child that inherits it holds the lock too.
        """
        path = self.root / "locks" / f"{name}.lock"
        with path.open("w") as file:
            if not _try_lock(file):
                self.progress(f"waiting for another run that makes {name}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file.fileno()

    def _make(self, recipe: Recipe, build: Callable[[Path], None], final: Path) -> None:
        for stale in (self.root / "tmp").glob(f"{recipe.name}.*"):
            remove(stale)
        draft = Path(tempfile.mkdtemp(prefix=f"{recipe.name}.", dir=self.root / "tmp"))
        try:
            build(draft)
            (draft / "recipe.json").write_text(recipe.canonical() + "\n")
            _seal(draft)
            draft.chmod(0o755)
            os.rename(draft, final)
        finally:
            if draft.exists():
                remove(draft)

    def _remove_stale(self) -> None:
        """Remove drafts whose makers died."""
        for draft in (self.root / "tmp").iterdir():
            name = re.sub(r"\.[^.]*$", "", draft.name)
            with (self.root / "locks" / f"{name}.lock").open("w") as file:
                if _try_lock(file) and draft.is_dir():
                    remove(draft)

    @contextlib.contextmanager
    def _space(self) -> Iterator[None]:
        """Say "no space" when that is the reason, also when a command that we ran met it first."""
        try:
            yield
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise self._full() from error
            raise
        except BuildFailed as error:
            if shutil.disk_usage(self.root).free < _NEARLY_FULL_BYTES:
                raise self._full() from error
            raise

    def _full(self) -> InfraFault:
        return InfraFault(
            f"no space left below {self.root}",
            hint=f"a full set of images and kernels needs about 6 GiB; remove {self.root} to start afresh",
        )


def _used(folder: Path) -> float:
    """When a work folder was last used (s); 0: it is gone."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _seal(folder: Path) -> None:
    """Write everything to the disk and make the files read-only: entries never change."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.chmod(path.stat().st_mode & ~0o222)


def remove(folder: Path) -> None:
    """Remove a folder of ours, also when its sub-folders are not writable."""
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o700)
    shutil.rmtree(folder)
