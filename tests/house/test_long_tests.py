# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make test` leaves to `make test-all`: what takes longer, and never all of a file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.long_tests import LONG, LONG_S, listed, long_ones

NODES = st.builds(lambda file, name: f"{file}::{name}", st.sampled_from("ab"), st.integers(0, 9))


@given(st.dictionaries(NODES, st.floats(0, 2)))
def test_what_takes_longer_and_never_all_of_a_file(spent: dict[str, float]) -> None:
    kept = long_ones(spent)
    assert kept == sorted(set(kept))
    for file in {node[0] for node in spent}:
        left = {node: seconds for node, seconds in spent.items() if node[0] == file and node not in kept}
        assert sum(seconds > LONG_S for seconds in left.values()) == (min(left.values()) > LONG_S)
    assert all(spent[node] > LONG_S for node in kept)


def test_the_list_is_in_order() -> None:
    assert listed() and LONG.read_text() == "".join(f"{node}\n" for node in sorted(listed()))
