# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenario files on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.errors import UsageError
from harness.scenario.bounds import MAX_TEXT
from harness.scenario.load import Refusal, load_all, load_each, refusal
from harness.scenario.schema import Scenario

REPOSITORY = Path(harness.__file__).resolve().parent.parent


def default_scenarios() -> Path:
    """tests/scenarios of the repository that this package was installed from, else of the working directory."""
    for root in (REPOSITORY, Path.cwd()):
        if (root / "tests" / "scenarios").is_dir():
            return root / "tests" / "scenarios"
    raise UsageError("there is no folder tests/scenarios here", hint="say where scenarios are with --scenarios DIR")


@dataclass(frozen=True, slots=True)
class ScenarioFiles:
    """What was found in files and folders: the scenarios, and the files that no scenario can be had from."""

    scenarios: tuple[Scenario, ...]
    refused: tuple[Refusal, ...]


def read_scenario_files(paths: Iterable[Path]) -> ScenarioFiles:
    """Like read_scenarios(), but a bad file takes only its own scenarios away.

    :raise UsageError: a path is missing, or a folder holds no scenario.
    """
    texts: list[tuple[str, str]] = []
    unreadable: list[Refusal] = []
    for file in _files(paths):
        if not os.path.lexists(file):
            raise UsageError(f"{file}: No such file or directory")
        try:
            texts.append((str(file), _read(file)))
        except UsageError as exc:
            unreadable.append(refusal(str(file), exc.message))
    found, refused = load_each(texts)
    return ScenarioFiles(found, tuple(sorted((*unreadable, *refused), key=lambda r: r.file)))


def read_scenarios(paths: Iterable[Path]) -> tuple[Scenario, ...]:
    """The scenarios of these files, and of the *.toml files of these folders, in the order of their names.

    :raise ScenarioError: see scenario.load.load_all.
    :raise UsageError: a path is missing, unreadable, or holds no scenario.
    """
    return load_all((str(file), _read(file)) for file in _files(paths))


def file_of(name: str, paths: Iterable[Path]) -> Path | None:
    """The file in which the scenario with this id is written, for a message.

    :raise UsageError: as ``read_scenarios``.
    """
    return next(
        (file for file in _files(paths) if any(s.id == name for s in read_scenario_files([file]).scenarios)), None
    )


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob("*.toml"))
            if not found:
                raise UsageError(f"{path}: no scenario file (*.toml) in this folder")
            files += found
        else:
            files.append(path)
    return files


def _read(file: Path) -> str:
    """:raise UsageError: it is no regular file (a FIFO would never end, a device perhaps neither), or is no text."""
    try:
        # Opened without waiting for a FIFO's writer, and looked at when it is open: it may be exchanged in between.
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise UsageError(f"{file}: not a regular file")
            data = stream.read(4 * MAX_TEXT + 1)  # as many bytes as so many characters may have
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise UsageError(f"{file}: {why}") from exc
