# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches onto a source tree: all of a series, or an error that names patch, file and hunk."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.artifacts.command import missing_tool, tail
from harness.errors import BuildFailed, CatalogError

_FILE = re.compile(r"^(?:checking|patching) file '?(?P<file>[^'\n]+)'?")
_HUNK = re.compile(r"^Hunk #(?P<hunk>\d+) FAILED at (?P<line>\d+)")
_GONE = re.compile(r"^can't find file to patch|^No file to patch|^The next patch (?:would|when)|^Reversed")


def expand(sources: Sequence[Path]) -> list[Path]:
    """The patch files of files and folders, in order; a folder's file ``series`` gives its order.

    :raise CatalogError: a file is missing, or a folder has no patches.
    """
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            series = source / "series"
            if series.is_file():
                lines = (line.split("#", 1)[0].strip() for line in series.read_text().splitlines())
                patches = [source / line for line in lines if line]
            else:
                patches = sorted(source.glob("*.patch"))
            if not patches:
                raise CatalogError(f"{source}: there are no patches in this folder")
            found += patches
        else:
            found.append(source)
    for patch in found:
        if not patch.is_file():
            raise CatalogError(f"there is no patch {patch}")
    return found


def apply(tree: Path, patches: Sequence[Path]) -> None:
    """Apply the patches in order; files they do not touch keep their times, hard links to touched files are broken.

    :raise BuildFailed: one does not apply; the tree is then half patched and of no further use.
    """
    for patch in patches:
        words = ["patch", "-p1", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch", "--reject-file=-"]
        try:
            done = subprocess.run(
                [*words, "-i", str(patch)], cwd=tree, capture_output=True, text=True, errors="replace", check=False
            )
        except FileNotFoundError as error:
            raise missing_tool("patch") from error
        if done.returncode != 0:
            raise BuildFailed(f"{patch.name} does not apply to {tree.name}:\n{_why(done.stdout + done.stderr)}")


def _why(said: str) -> str:
    """The files and hunks that failed, from patch(1)'s messages."""
    file = ""
    failures = []
    for line in said.splitlines():
        if match := _FILE.match(line):
            file = match["file"]
        elif match := _HUNK.match(line):
            failures.append(f"    {file}: hunk {match['hunk']} (line {match['line']})")
        elif _GONE.match(line):
            failures.append(f"    {file + ': ' if file else ''}{line}")
    return "\n".join(failures) or tail(said)
