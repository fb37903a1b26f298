# SPDX-License-Identifier: GPL-2.0-or-later
"""Console text for people."""

from __future__ import annotations

from harness.hosts.virtual.console import tail


def test_tail_is_safe_to_print() -> None:
    assert tail(b"one\r\n\x1b[2J\x1b[31mtwo\x07\x00\r\nthree \xff\n", 2) == "two\nthree �"
