# SPDX-License-Identifier: GPL-2.0-or-later
"""Text that anybody may have written, safe to show: consoles hold escape sequences, and worse."""

from __future__ import annotations


def printable(text: str) -> str:
    """What cannot be printed is escaped, also what turns the direction of the text round; lines and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
