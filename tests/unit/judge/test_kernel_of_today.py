# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of Debian's 7.3.4, which joins the swap reads of a window into one bio (mm/page_io.c:swap_add_folio)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.judge.verdict import judge_capture
from harness.model.kernels import kernel_for
from harness.run.judge_folder import model_of, read_capture
from harness.status import Status
from tests.unit.judge.packed import packed_capture

CAPTURES = Path(__file__).parents[2] / "data/captures-7.3"
NAMES = sorted(path.name for path in CAPTURES.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_kernel_passes(name: str) -> None:
    files = read_capture(CAPTURES / name)
    kernel = model_of(files, "nowait")
    assert kernel == kernel_for("nowait", "7.3.4")
    verdict = judge_capture(files, kernel)
    assert verdict.status is Status.PASS, verdict.findings
    assert verdict.total("BIO_V") == 1 and verdict.total("RA") == 7


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_does_not_know_of_the_joined_reads_fails(name: str) -> None:
    files = read_capture(CAPTURES / name)
    verdict = judge_capture(files, replace(model_of(files, "nowait"), swap_reads_joined=False))
    assert verdict.status is Status.FAIL
    assert [(f.rule, f.message) for f in verdict.findings] == [("total", "BIO_V: predicted 8, seen 1")]


def test_reads_that_failed_are_not_counted() -> None:
    """stock-7.3 in S47N: of seven pages three fail, and PSWPIN grows by four (mm/page_io.c:swap_read_end)."""
    files = packed_capture("S47N+stock-7.3")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.findings
    assert verdict.total("PSWPIN") == 4
