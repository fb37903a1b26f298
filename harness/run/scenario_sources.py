# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenario files on disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import harness
from harness.errors import UsageError
from harness.scenario.load import load_all
from harness.scenario.schema import Scenario

REPOSITORY = Path(harness.__file__).resolve().parent.parent


def default_scenarios() -> Path:
    """tests/scenarios of the repository that this package was installed from, else of the working directory."""
    for root in (REPOSITORY, Path.cwd()):
        if (root / "tests" / "scenarios").is_dir():
            return root / "tests" / "scenarios"
    raise UsageError("there is no folder tests/scenarios here", hint="say where scenarios are with --scenarios DIR")


def read_scenarios(paths: Iterable[Path]) -> tuple[Scenario, ...]:
    """The scenarios of these files, and of the *.toml files of these folders, in the order of their names.

    :raise ScenarioError: see scenario.load.load_all.
    :raise UsageError: a path is missing, unreadable, or holds no scenario.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob("*.toml"))
            if not found:
                raise UsageError(f"{path}: no scenario file (*.toml) in this folder")
            files += found
        else:
            files.append(path)
    texts: list[tuple[str, str]] = []
    for file in files:
        try:
            texts.append((str(file), file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
            raise UsageError(f"{file}: {why}") from exc
    return load_all(texts)
