# SPDX-License-Identifier: GPL-2.0-or-later
"""What a terminal, a browser or an editor could take for a command is shown, not done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.report.printable import printable


@given(st.text())
def test_only_lines_and_what_can_be_printed(text: str) -> None:
    assert all(c.isprintable() or c in "\n\t" for c in printable(text))


def test_examples() -> None:
    assert printable("\x1b[31mred\x07") == r"\x1b[31mred\x07"
    assert printable("a\u202eb") == r"a\u202eb"
    assert printable("plain\n\ttext äö") == "plain\n\ttext äö"
