# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of runs whose pages lie in large folios of the page cache.

``large-folios``: S210 on 7.3.4.  ``large-folio-private``: an outsider's scenario there, of a private mapping; the folio
at the end of the block of fault-around reaches out of it.  ``large-folio-marker``: the same on 6.16.12, where a marker
in the middle of a folio makes page_cache_next_miss answer three pages too high.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.judge.verdict import judge_capture
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture

NAMES = ("large-folios", "large-folio-private", "large-folio-marker")


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_kernel_passes(name: str) -> None:
    files = packed_capture(name)
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.findings


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "field", "item"),
    [
        ("large-folios", "ext4_large_folios", 4),
        ("large-folios", "fault_maps_folio", 4),
        ("large-folios", "read_around_single", 3),
        ("large-folio-marker", "ext4_large_folios", 10),
        ("large-folio-private", "ext4_large_folios", 36),
        ("large-folio-private", "fault_maps_folio", 36),
    ],
)
def test_a_model_without_it_fails(name: str, field: str, item: int) -> None:
    files = packed_capture(name)
    kernel = model_of(files, "nowait")
    verdict = judge_capture(files, replace(kernel, **{field: not getattr(kernel, field)}))  # type: ignore[arg-type]
    assert verdict.status is Status.FAIL
    assert item in {f.item for f in verdict.findings}
