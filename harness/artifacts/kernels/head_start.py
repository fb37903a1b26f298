# SPDX-License-Identifier: GPL-2.0-or-later
"""The objects of a finished base for the first build of somebody's tree: only what differs is compiled.

kbuild notes the command of each object, and the folder that it was made in; moved with the notes rewritten, an object
is what make would make there.  Sources that are equal keep their times (kernel_source.mirror), so that make takes them
for built; symbols that are configured otherwise are found by kbuild's own notes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.artifacts.kernels import kernel_source
from harness.artifacts.store import remove
from harness.errors import ApfError

_NOTES = (".cmd", ".d", "Makefile")
_LEVEL = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)$", re.MULTILINE)


def take(works: Path, tree: Path, source: Path) -> str:
    """Fill ``tree`` with the sources and objects of the base that is nearest to ``source`` among those of its series.

    :param works: folders {base/src, base/obj}, each built as its sibling "tree"; they stay as they are.
    :param tree: is made; where it is there already, or no base fits, nothing is done.
    :return: what the base is, "7.3.4"; empty: nothing was taken.
    """
    wanted = _level(source)
    bases = [(level, base) for base in works.glob("*/base") if (level := _level(base / "src"))[:2] == wanted[:2]]
    if tree.exists() or len(wanted) != 3 or not bases:
        return ""
    level, base = min(bases, key=lambda found: (abs(found[0][2] - wanted[2]), found[1]))
    try:
        kernel_source.clone(base, tree)
        _move_notes(tree, str(base.with_name("tree")).encode(), str(tree).encode())
        kernel_source.forget_stamps(tree / "src")
    except (OSError, ApfError):  # its work was removed meanwhile
        if tree.exists():
            remove(tree)
        return ""
    return ".".join(map(str, level))


def _move_notes(tree: Path, old: bytes, new: bytes) -> None:
    """Write the tree's own place where the base's is noted; times stay."""
    for folder, _, names in os.walk(tree / "obj"):
        for name in names:
            path = Path(folder, name)
            if not name.endswith(_NOTES) or path.is_symlink():
                continue
            text = path.read_bytes()
            if old in text:
                status = path.stat()
                path.write_bytes(text.replace(old, new))
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    link = tree / "obj/source"
    if link.is_symlink():
        link.unlink()
        link.symlink_to(tree / "src")


def _level(source: Path) -> tuple[int, ...]:
    """Version, patch level and sublevel of a source tree; fewer: its Makefile does not say."""
    try:
        found = dict(_LEVEL.findall((source / "Makefile").read_text(errors="replace")))
    except OSError:
        return ()
    return tuple(int(found[key]) for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL") if key in found)
