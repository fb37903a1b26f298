# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU processes of a process, by their command lines: their own name is the loader's where it is not this machine's
QEMU (ADR 23)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def qemus(parent: int) -> list[int]:
    """Those whose parent it is; a zombie has no command line."""
    return [pid for pid in _children(parent) if _is_qemu(pid)]


def qemus_below(pid: int) -> list[int]:
    """Those among its descendants."""
    return [found for child in _children(pid) for found in ([child] if _is_qemu(child) else qemus_below(child))]


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        return [int(child) for text in texts for child in text.split()]
    return []


def _is_qemu(pid: int) -> bool:
    with suppress(OSError):
        return b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
