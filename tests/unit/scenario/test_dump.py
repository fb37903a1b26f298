# SPDX-License-Identifier: GPL-2.0-or-later
"""What dump() writes, load_text() reads as the same scenario: of each scenario file, and of odd texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scenario.dump import dump
from harness.scenario.load import load_text

FILES = sorted((Path(__file__).parents[2] / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_scenario_file_comes_back(file: Path) -> None:
    for scenario in load_text(file.name, file.read_text()):
        assert load_text("again", dump(scenario)) == (scenario,)


@given(title=st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40))
def test_any_printable_title_comes_back(title: str) -> None:
    scenario = replace(load_text(FILES[0].name, FILES[0].read_text())[0], title=title)
    assert load_text("again", dump(scenario)) == (scenario,)


def test_defaults_are_left_out() -> None:
    scenario = load_text(FILES[0].name, FILES[0].read_text())[0]
    assert "deadline_s = 60" not in dump(replace(scenario, deadline_s=60))
