# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/three-variants.md prints what `apf explain` says; so it must keep saying it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.cli import main

DOC = Path(__file__).parents[3] / "docs" / "three-variants.md"
BLOCKS = re.findall(r"```console\n\$ apf (explain [^\n]*)\n(.*?)\n```", DOC.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(("command", "shown"), BLOCKS, ids=[b[0] for b in BLOCKS])
def test_output_in_the_page_is_real(command: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(command.split())
    captured = capsys.readouterr()
    real = (captured.out + captured.err).rstrip("\n")
    at = 0
    for part in re.split(r"^\[\.\.\.\]$", shown, flags=re.MULTILINE):
        part = part.strip("\n")
        assert part in real[at:], part
        at = real.index(part, at) + len(part)
    if not shown.endswith("[...]"):
        assert at == len(real)


def test_the_page_has_examples() -> None:
    assert len(BLOCKS) >= 8
