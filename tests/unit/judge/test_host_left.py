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


def test_what_could_not_be_performed_is_not_allowed_by_name_there() -> None:
    files = left_dirty("explored-added-before-its-bio")
    end = json.loads(files["end.json"]) | {"status": "unsupported"}
    verdict = judge_capture(files | {"end.json": json.dumps(end).encode()}, model_of(files, "nowait"))
    assert verdict.status is Status.INCONCLUSIVE and verdict.taints and LEFT in verdict.reason


def test_damage_does_not_hide_it() -> None:
    files = left_dirty("explored-added-before-its-bio")
    del files["guest/log.bin"]
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.reason.startswith("damaged capture") and verdict.taints
    assert LEFT in verdict.notes[-1]
