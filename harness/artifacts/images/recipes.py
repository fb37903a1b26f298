# SPDX-License-Identifier: GPL-2.0-or-later
"""guest-images/host/image.toml as data."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness.artifacts import layout
from harness.errors import BuildFailed

HOST_RECIPE = layout.GUEST_IMAGES / "host/image.toml"


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """What a root file system consists of; the file says what each key means."""

    suite: str
    packages: tuple[str, ...]
    without: tuple[str, ...]
    drop: tuple[str, ...]
    keep: tuple[str, ...]
    modules: tuple[str, ...]
    guest_modules: tuple[str, ...]

    def wants(self, path: str) -> bool:
        """Whether a package's file goes into the image."""
        return not _matches(path, self.drop) or _matches(path, self.keep)

    def inputs(self) -> dict[str, Any]:
        """The recipe as plain data, without the modules: they are not in the root file system."""
        return {key: value for key, value in asdict(self).items() if not key.endswith("modules")}


def host_recipe(path: Path = HOST_RECIPE) -> ImageRecipe:
    """The recipe of the virtual host's root file system.

    :raise BuildFailed: the file says something else than a recipe.
    """
    raw = tomllib.loads(path.read_text())
    names = {entry.name for entry in fields(ImageRecipe)}
    if set(raw) != names:
        raise BuildFailed(f"{path}: unknown or missing keys: {', '.join(sorted(set(raw) ^ names))}")
    suite = raw.pop("suite")
    return ImageRecipe(suite, **{key: tuple(value) for key, value in raw.items()})


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
