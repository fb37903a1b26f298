# SPDX-License-Identifier: GPL-2.0-or-later
"""The corpus is valid and small, each of its scenarios reaches something that those before it do not."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from harness.explore.reach import reach, smallest_cover
from harness.model.kernels import find_kernel
from harness.prediction import predict
from harness.scenario.build import build_plan
from harness.scenario.load import load_text

CORPUS = sorted((Path(__file__).parents[2] / "corpus").glob("*.toml"))
KERNEL = find_kernel("nowait-6.1")


def test_each_of_the_corpus_reaches_something_new() -> None:
    known: set[str] = set()
    for file in CORPUS:
        (scenario,) = load_text(file.name, file.read_text())
        found = reach(predict(build_plan(scenario, 1), KERNEL))
        assert not found <= known, file.name
        known |= found
    assert {"TRY then NP", "REP then OUT", "NP then INJ"} <= known
    assert len(CORPUS) <= 64


@given(st.dictionaries(st.text(max_size=3), st.frozensets(st.sampled_from("abcdefgh")), max_size=8))
def test_a_cover_reaches_all_and_none_of_it_is_in_vain(reached: dict[str, frozenset[str]]) -> None:
    names = list(smallest_cover(reached, len(reached)))
    known: set[str] = set()
    for name in names:
        assert not reached[name] <= known
        known |= reached[name]
    assert known == set().union(*reached.values())
