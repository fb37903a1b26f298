# SPDX-License-Identifier: GPL-2.0-or-later
"""Console text made safe to print."""

from __future__ import annotations

import re


def tail(text: bytes, lines: int = 20) -> str:
    """The last lines of a console, without escape sequences and other control bytes: safe to print."""
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]", b"", text.replace(b"\r\n", b"\n"))
    return "\n".join(plain.decode(errors="replace").splitlines()[-lines:])
