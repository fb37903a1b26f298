# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts about a host program: as it would write on kernels with and without the fault, and what proves nothing."""

from __future__ import annotations

import json

import pytest

from harness.contract import plan as p
from harness.contract.host_program import (
    EXIT,
    NESTED_PROGRAM,
    OUTPUT,
    WAYS_PROGRAM,
    RunsAgain,
    Told,
    sentence,
)
from harness.judge.verdict import judge_capture
from harness.judge.verdict_types import Verdict
from harness.model.kernels import KernelModel, find_kernel
from harness.model.known_faults import with_fixes
from harness.prediction import predict_cases
from harness.status import Status
from tests.unit.judge.packed import packed_capture

N61 = find_kernel("nowait-6.1")
FIXED = with_fixes(N61, ["F1"])


def plan_of(program: str, arguments: str = "") -> p.Plan:
    """The plan for a host program."""
    return p.Plan(
        scenario="S115", title="", nonce=7,
        guest=p.Guest(p.GuestKind.HOST_PROGRAM, workload=program, cmdline=arguments), memory=p.Memory(),
        swap=p.Swap(kind=p.SwapKind.NONE), pages=(), items=(),
    )  # fmt: skip


ALL_WAYS = plan_of(WAYS_PROGRAM, "all")
NESTED = plan_of(NESTED_PROGRAM)


def output(kernel: KernelModel, plan: p.Plan = ALL_WAYS) -> str:
    """What the program writes on a kernel that does as its model says."""
    lines = []
    for number, each in enumerate(predict_cases(plan, kernel), 1):
        word = "not ok" if each.outcome in (RunsAgain.NEVER, Told.LEFT, Told.TO_L2) else "ok"
        lines.append(f"{word} {number} - {sentence(each.case, each.outcome)}\n")
    return f"TAP version 13\n1..{len(lines)}\n" + "".join(lines)


def judged(
    said: str, kernel: KernelModel, *, plan: p.Plan = ALL_WAYS, code: int = 0, status: str = "done", dmesg: str = ""
) -> Verdict:
    """The verdict about a capture in which the program wrote that."""
    end = {
        "format": 2,
        "nonce": 7,
        "status": status,
        "reason": "it still ran" if status != "done" else "",
        "undone": True,
    }
    files = {
        "plan.json": p.to_json(plan).encode(),
        "end.json": json.dumps(end).encode(),
        OUTPUT: said.encode(),
        EXIT: json.dumps({"code": code}).encode(),
        "host/dmesg.txt": dmesg.encode(),
    }
    return judge_capture({name: data for name, data in (files).items() if data}, kernel)


def test_a_faulty_kernel_shows_the_finding() -> None:
    verdict = judged(output(N61), N61, code=1)
    assert verdict.word == "FINDING F1" and not verdict.findings
    assert "off reset: never" in verdict.notes


def test_a_fixed_kernel_passes() -> None:
    verdict = judged(output(FIXED), FIXED)
    assert verdict.status is Status.PASS and not verdict.reason and verdict.model == "nowait-6.1+F1"


def test_the_finding_is_gone_or_is_there_after_all() -> None:
    gone = judged(output(FIXED), N61)
    assert gone.status is Status.FAIL and gone.reason.startswith("finding F1 is not reproduced any more")
    there = judged(output(N61), FIXED, code=1)
    assert there.status is Status.FAIL and there.reason.startswith("this is finding F1")


def test_another_difference_is_a_new_fault() -> None:
    said = output(N61).replace("cpl0 mpstate: the vCPU runs with its page", "cpl0 mpstate: the vCPU runs never")
    verdict = judged(said, N61, code=1)
    assert (
        verdict.status is Status.FAIL
        and "seen: cpl0 mpstate: the vCPU runs never; predicted: with its page" in verdict.reason
    )
    assert not verdict.known_faults


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        ("TAP version 13\n", 1, "0 of 27 tests have a result: TAP version 13"),
        ("\n", 1, "0 of 27 tests have a result: it said nothing"),
        (output(N61).rsplit("ok 27", 1)[0], 1, "26 of 27 tests"),
        (
            output(N61) + "ok 28 - off nmi: the vCPU runs at once\n",
            1,
            "28 of 27",
        ),
        ("TAP version 13\nBail out! no memory\n", 1, "Bail out! no memory"),
        (output(N61), 0, "ended with 0"),
        (output(N61), -9, "ended with -9"),
        ("not ok 1 - what\n", 1, "damaged capture"),
    ],
)
def test_what_proves_nothing(said: str, code: int, reason: str) -> None:
    verdict = judged(said, N61, code=code)
    assert verdict.status is Status.INCONCLUSIVE and reason in verdict.reason


def test_skipped_hung_and_kernel_trouble() -> None:
    skipped = judged("TAP version 13\n1..27\nok 1 # SKIP /dev/kvm: No such file\n", N61, code=4)
    assert skipped.status is Status.UNSUPPORTED and "/dev/kvm" in skipped.reason
    wrong = next(line for line in output(N61).splitlines() if line not in output(FIXED))
    late = judged(f"TAP version 13\n1..27\n{wrong}\nok 99 # SKIP no memory\n", FIXED, code=4)
    assert late.status is Status.FAIL, "what was seen before it was skipped counts"
    hung = judged("TAP version 13\n", N61, status="guest-timeout")
    assert hung.status is Status.FAIL and hung.taints
    oops = judged(output(N61), N61, code=1, dmesg="[    1.000000] BUG: kernel NULL pointer dereference, address: 0\n")
    assert oops.status is Status.FAIL and oops.findings[0].rule == "D28"


@pytest.mark.parametrize(
    ("kernel", "fixes", "word"),
    [
        ("nowait-5.10", ("F4",), "FINDING F4"),
        ("nowait-6.1", ("F2", "F3"), "FINDING F2 F3"),
        ("nowait-6.12", ("F3",), "FINDING F3"),
        ("nowait-7.3", ("F3",), "FINDING F3"),
    ],
)
def test_tokens_of_an_l2_on_kernels_with_and_without_the_faults(kernel: str, fixes: tuple[str, ...], word: str) -> None:
    faulty, fixed = find_kernel(kernel), with_fixes(find_kernel(kernel), fixes)
    shown = judged(output(faulty, NESTED), faulty, plan=NESTED, code=1)
    assert shown.word == word and not shown.findings
    assert judged(output(fixed, NESTED), fixed, plan=NESTED).status is Status.PASS
    assert judged(output(faulty, NESTED), fixed, plan=NESTED, code=1).status is Status.FAIL


def test_one_of_two_findings_is_mended() -> None:
    fixed = with_fixes(N61, ("F2",))
    verdict = judged(output(fixed, NESTED), fixed, plan=NESTED, code=1)
    assert verdict.word == "FINDING F3"
    gone = judged(output(fixed, NESTED), N61, plan=NESTED, code=1)
    assert gone.status is Status.FAIL and gone.reason.startswith("finding F2 is not reproduced any more")


def test_real_captures_of_a_faulty_and_a_fixed_kernel() -> None:
    faulty, fixed = packed_capture("host-program-faulty"), packed_capture("host-program-fixed")
    assert judge_capture(faulty, N61).word == "FINDING F1"
    assert judge_capture(fixed, FIXED).status is Status.PASS
    assert judge_capture(faulty, FIXED).reason.startswith("this is finding F1")
    assert judge_capture(fixed, N61).reason.startswith("finding F1 is not reproduced any more")
    assert faulty[OUTPUT].decode() == output(N61) and fixed[OUTPUT].decode() == output(FIXED)


def test_real_captures_of_tokens_of_an_l2() -> None:
    faulty, fixed = packed_capture("nested-program-faulty"), packed_capture("nested-program-fixed")
    mended = with_fixes(N61, ("F2", "F3"))
    assert judge_capture(faulty, N61).word == "FINDING F2 F3"
    assert judge_capture(fixed, mended).status is Status.PASS
    assert judge_capture(faulty, mended).status is judge_capture(fixed, N61).status is Status.FAIL
    said = {line for line in faulty[OUTPUT].decode().splitlines() if "ok" in line}
    assert said == {line for line in output(N61, NESTED).splitlines() if "ok" in line}
