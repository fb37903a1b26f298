# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page of `apf matrix` says of a scenario on a kernel."""

from __future__ import annotations

from harness.artifacts import layout


def cell(page: str, scenario: str, column: str) -> str:
    """Of the table of scenarios; empty: not performed there.  Marks of what differs from its neighbour are left out."""
    lines = [[word.strip() for word in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    (head,) = (words for words in lines if words[0] == "scenario")
    (row,) = (words for words in lines if words[0].startswith(f"{scenario} "))
    return row[head.index(column)].strip("*")


def direct(scenario: str, column: str) -> str:
    """On docs/kernels.md, which was made from runs on virtual hosts of one machine."""
    found = cell((layout.REPOSITORY / "docs/kernels.md").read_text(), scenario, column)
    assert found, f"{scenario} was not performed on {column}"
    return found
