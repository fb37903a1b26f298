# SPDX-License-Identifier: GPL-2.0-or-later
"""As test_explored.py: captures of noio-6.1 that once disagreed with the model, and why the kernel may do that."""

from __future__ import annotations

import pytest

from harness.judge.verdict import judge_capture
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture

SETTLED = {
    "neighbour-mapped-meanwhile": "a vCPU maps the pages around its own (mm/filemap.c:filemap_map_pages) between"
    " another's look at one of them and that one's call of handle_mm_fault, which finds it done (S305)",
}


@pytest.mark.parametrize("name", sorted(SETTLED))
def test_a_sound_kernel_with_the_noio_series_agrees(name: str) -> None:
    files = packed_capture(f"explored-{name}")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.status is Status.PASS, verdict.reason
