# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are there whole or not at all, whenever who writes them is killed."""

from __future__ import annotations

import shutil
from pathlib import Path


def write_whole(path: Path, data: str | bytes, mode: int | None = None) -> Path:
    """Write a file; until it is whole, what was there before stays.

    What is no plain file (/dev/stdout, a link) is written as it is.

    :param mode: its permissions; None: those that it had, or the usual ones.
    :return: the file.
    :raise OSError: it cannot be written; nothing has changed.
    """
    raw = data.encode() if isinstance(data, str) else data
    is_plain = path.is_file() and not path.is_symlink()
    if not is_plain and (path.exists() or path.is_symlink()):
        path.write_bytes(raw)
        return path
    draft = path.with_name(f".{path.name}.part")
    try:
        draft.write_bytes(raw)
        if mode is not None:
            draft.chmod(mode)
        elif is_plain:
            shutil.copymode(path, draft)
        return draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
