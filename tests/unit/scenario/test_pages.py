# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.plan import PAGE_SIZE, POOL_GPA
from harness.errors import ScenarioError
from harness.scenario.pages import HUGE, lay_out, select
from harness.scenario.schema import PageSet

sets = st.builds(
    lambda groups, run, gap: PageSet(groups=groups, run=run, stride=run + gap),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 100),
)


@given(st.dictionaries(st.sampled_from("abcdef"), sets, min_size=1))
def test_sets_never_share_a_page_nor_a_2mib_range(specs: dict[str, PageSet]) -> None:
    placed = lay_out(specs)
    ranges: dict[int, str] = {}
    for name, gpas in placed.items():
        assert len(gpas) == specs[name].groups * specs[name].run
        assert list(gpas) == sorted(set(gpas))
        for gpa in gpas:
            assert gpa >= POOL_GPA and gpa % PAGE_SIZE == 0
            assert ranges.setdefault(gpa // (HUGE * PAGE_SIZE), name) == name


def test_groups_start_a_stride_apart_and_hold_adjacent_pages() -> None:
    gpas = lay_out({"f": PageSet(groups=2, run=3, stride=64)})["f"]
    assert [(g - POOL_GPA) // PAGE_SIZE for g in gpas] == [0, 1, 2, 64, 65, 66]


@given(st.integers(1, 50), st.integers(-60, 60), st.integers(-60, 60), st.integers(1, 5))
def test_names_select_as_python_does(size: int, low: int, high: int, step: int) -> None:
    placed = {"f": tuple(range(size))}
    want = list(range(size))[low:high:step]
    if want:
        assert [gpa for _, gpa in select(placed, f"f[{low}:{high}:{step}]")] == want
    else:
        with pytest.raises(ScenarioError, match="selects no page"):
            select(placed, f"f[{low}:{high}:{step}]")


def test_a_list_keeps_its_order_and_names_each_page() -> None:
    assert select({"f": (10, 20), "g": (30,)}, ("g", "f[-1]", "f[0]")) == [("g[0]", 30), ("f[1]", 20), ("f[0]", 10)]


@pytest.mark.parametrize("name", ["", "f[", "f[x]", "f[1:2:0]", "f[1:2:3:4]", "f[]", "9f", "h"])
def test_names_that_cannot_be_read(name: str) -> None:
    with pytest.raises(ScenarioError):
        select({"f": (1, 2, 3)}, name)
