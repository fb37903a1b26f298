# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that could not be set back: no verdict of its run is green."""

from __future__ import annotations

import json

from harness.judge.verdict import judge_capture
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture

LEFT = "swap /dev/nbd0: swapoff /dev/nbd0 was not through after 30 s"


def left_dirty(name: str) -> dict[str, bytes]:
    files = packed_capture(name)
    end = json.loads(files["end.json"]) | {"undone": False, "reason": LEFT}
    return files | {"end.json": json.dumps(end).encode()}


def test_what_was_as_predicted_is_inconclusive() -> None:
    files = left_dirty("explored-added-before-its-bio")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.reason == f"the host could not be set back: {LEFT}"
    assert verdict.taints


def test_a_finding_is_shown_by_no_run_that_leaves_something_behind() -> None:
    files = left_dirty("nested-window")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.INCONCLUSIVE and verdict.taints


def test_what_is_wrong_stays_so_and_says_it_besides() -> None:
    files = left_dirty("explored-added-before-its-bio")
    verdict = judge_capture(files, model_of(files, "sync"))
    assert verdict.status is Status.FAIL and verdict.taints
    assert verdict.notes[-1] == f"the host could not be set back: {LEFT}"
