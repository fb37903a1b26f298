# SPDX-License-Identifier: GPL-2.0-or-later
"""Read-ahead that device mapper does not take."""

from __future__ import annotations

from dataclasses import replace

from harness.evidence.decode import decode
from harness.judge.recording import recording
from harness.judge.rules_context import places
from tests.unit.judge.packed import packed_capture


def test_device_mapper_refuses_only_while_a_table_is_loaded() -> None:
    evidence = decode(packed_capture("explored-refused-read-ahead"))
    found = recording(evidence, places(evidence))
    assert found is not None
    assert found.refused
    assert all(end in found.read_ends[gfn] for gfn, end in found.refused)
    steps = evidence.files["progress.jsonl"]
    for word in (b"freeze", b"thaw", b"delay"):
        steps = steps.replace(b'"do": "%s"' % word, b'"do": "sleep"')
    quiet = replace(evidence, files={**evidence.files, "progress.jsonl": steps})
    other = recording(quiet, places(quiet))
    assert other is not None
    assert not other.refused
