# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host's counters say of the pages that it has."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.contract.capture import CounterSnapshot
from harness.evidence.counter_deltas import deltas, file_pages_lacking

COUNTED = {
    "nr_file_pages": 90, "nr_active_file": 20, "nr_inactive_file": 30, "nr_isolated_file": 1, "nr_shmem": 29,
    "nr_swapcached": 10,
}  # fmt: skip


@pytest.mark.parametrize(
    ("moved", "lacking"),
    [
        ({}, 0),
        ({"nr_file_pages": 91}, 0),
        ({"nr_file_pages": 87}, 3),
        ({"nr_swapcached": 12}, 2),
        ({"pglazyfree": 1}, None),
    ],
)
def test_a_page_on_a_list_of_files_is_counted_as_one(moved: Mapping[str, int], lacking: int | None) -> None:
    assert file_pages_lacking({**COUNTED, **moved}) == lacking


@pytest.mark.parametrize("name", COUNTED)
def test_a_kernel_that_does_not_count_them_all_tells_nothing(name: str) -> None:
    assert file_pages_lacking({key: value for key, value in COUNTED.items() if key != name}) is None


@pytest.mark.parametrize(("before", "after", "grown"), [(0, 0, 0), (0, 4, 4), (4, 4, 0), (4, 1, 0)])
def test_what_lacked_before_is_nothing_that_this_run_lost(before: int, after: int, grown: int) -> None:
    seen = [
        CounterSnapshot({**COUNTED, "nr_file_pages": 90 - lacking}, {}, {}, {}, None) for lacking in (before, after)
    ]
    assert deltas(seen[0], seen[1], ())["FILE_LACKING"] == grown
