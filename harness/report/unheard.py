# SPDX-License-Identifier: GPL-2.0-or-later
"""Output that nobody reads any more, or that cannot be written: it must end nothing but itself."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def tell_nobody(stream: TextIO) -> None:
    """From now on what is written to this stream goes nowhere, also what its buffer still holds: no write fails any
    more, the last one of a process that ends among them (Python makes exit code 120 of that)."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def let_go(stream: TextIO) -> None:
    """Write what its buffer still holds; if that cannot be, as tell_nobody()."""
    try:
        stream.flush()
    except (OSError, ValueError):
        tell_nobody(stream)


def require_streams() -> None:
    """Python has no stream where a descriptor was closed before it began (`>&-`): then one that goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
