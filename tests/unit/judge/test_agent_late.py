# SPDX-License-Identifier: GPL-2.0-or-later
"""A real run (7.3.4 with the fix of F1) whose agent got no processor: its wait-halted was not over in 8 s."""

from __future__ import annotations

import json
from collections.abc import Callable

from harness.judge.verdict import judge_capture
from harness.model.kernels import find_kernel
from harness.model.known_faults import with_fixes
from harness.status import Status
from tests.unit.judge.packed import packed_capture

FIXED = with_fixes(find_kernel("nowait-7.3"), ["F1"])
Line = dict[str, object]


def edited(change: Callable[[Line], list[Line]]) -> dict[str, bytes]:
    """The capture with other lines in progress.jsonl."""
    files = packed_capture("agent-starved")
    lines = [new for line in files["progress.jsonl"].splitlines() for new in change(json.loads(line))]
    return files | {"progress.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode()}


def test_what_the_agent_did_not_see_in_time_proves_nothing() -> None:
    verdict = judge_capture(packed_capture("agent-starved"), FIXED)
    assert verdict.status is Status.INCONCLUSIVE
    assert "the agent's wait-halted did not see in 8." in verdict.reason
    assert "stopped" in {f.rule for f in verdict.findings}, "what was seen is told all the same"


def test_an_agent_that_had_seen_it_excuses_nothing() -> None:
    def done(line: Line) -> list[Line]:
        if line["step"] != "guest-ended":
            return [line]
        stamps = {name: line[name] for name in ("t", "mono")}
        return [{**stamps, "step": "host-action-done", "do": "wait-halted", "arg": 1}, line]

    verdict = judge_capture(edited(done), FIXED)
    assert verdict.status is Status.FAIL and verdict.findings[0].rule == "stopped"


def test_nor_does_one_that_waited_for_what_never_came() -> None:
    """Two halted vCPUs of one."""
    verdict = judge_capture(edited(lambda line: [{**line, "arg": 2} if line["step"] == "host-action" else line]), FIXED)
    assert verdict.status is Status.FAIL


def test_nor_one_that_was_to_act() -> None:
    """A reset that does not come to its end is the kernel's affair."""
    verdict = judge_capture(
        edited(lambda line: [{**line, "do": "reset", "arg": 0} if line["step"] == "host-action" else line]), FIXED
    )
    assert verdict.status is Status.FAIL


def test_a_guest_that_stands_while_its_snapshot_is_written_owes_nothing() -> None:
    verdict = judge_capture(packed_capture("savevm-late"), find_kernel("nowait-7.3"))
    assert verdict.status is Status.INCONCLUSIVE and "QEMU wrote its snapshot still, 2.6 s" in verdict.reason
    assert {f.rule for f in verdict.findings} == {"D05"}, "what was seen is told all the same"
