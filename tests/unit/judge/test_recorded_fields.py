# SPDX-License-Identifier: GPL-2.0-or-later
"""A field that fits nothing is a finding, one by one, in real captures."""

from __future__ import annotations

import json
import re

import pytest

from harness.judge.verdict import judge_capture
from harness.model.kernels import find_kernel
from harness.status import Status
from tests.unit.judge.golden import edit_trace, is_event, load
from tests.unit.judge.packed import packed_capture
from tests.unit.judge.test_verdict import edit, model


@pytest.mark.parametrize(("old", "new"), [(r"\w{4}", "0000"), ("0", "1")])
def test_a_completion_of_another_address_of_the_vmm(old: str, new: str) -> None:
    pattern = rf"(async_pf_completed: .*address 0x\w+){old}$"
    files = edit_trace(load("S61"), edit(pattern, rf"\g<1>{new}"))
    verdict = judge_capture(files, model())
    assert verdict.status is Status.FAIL and "in the VMM" in " ".join(f.message for f in verdict.findings)


@pytest.mark.parametrize("name", ["S29", "S61"])
def test_a_fault_that_says_the_other_access(name: str) -> None:
    def flip(lines: list[str]) -> list[str]:
        at = next(
            i for i, x in enumerate(lines) if is_event(x) and "kvm_page_fault: " in x and "address 0x0000000001" in x
        )
        old = re.search(r"error_code 0x(\w+)", lines[at])
        assert old is not None
        lines[at] = lines[at].replace(old[0], f"error_code {int(old[1], 16) ^ 2:#x}")
        return lines

    verdict = judge_capture(edit_trace(load(name), flip), model())
    assert verdict.status is Status.FAIL and "its fault says" in " ".join(f.message for f in verdict.findings)


def test_a_worker_whose_fault_ended_in_an_error() -> None:
    files = edit_trace(load("S29"), edit(r"(kworker.*mm_fault_ret: .*ret=)0x\w+", r"\g<1>0x2"))
    verdict = judge_capture(files, model())
    assert verdict.status is Status.FAIL and "ended in an error" in " ".join(f.message for f in verdict.findings)


@pytest.mark.parametrize(
    ("pattern", "new", "words"),
    [
        (r"(kworker.*mm_fault: .*flags=)0x\w+", r"\g<1>0x9d", "waits for the read"),
        (r"(kworker.*mm_fault: .*flags=)0x\w+", r"\g<1>0x94", "waits for the read"),
        (r"(kworker.*mm_fault: .*flags=)0x\w+", r"\g<1>0x91", "keeps mmap_lock"),
        (r"(kworker.*mm_fault: .*flags=)0x95", r"\g<1>0x85", "not even a fatal signal"),
        (r"(kworker.*mm_fault: .*flags=)0x95", r"\g<1>0x15", "another's for a kworker"),
        (r"(KVM-.*mm_fault: .*flags=)0x1c", r"\g<1>0x0c", "not even a fatal signal"),
        (r"(KVM-.*mm_fault: .*flags=)0x1c", r"\g<1>0x9c", "is its own"),
        (r"(KVM-.*mm_fault: .*flags=)0x1c", r"\g<1>0x1d", "the other"),
        (r"(KVM-.*mm_fault: .*flags=)0x1c", r"\g<1>0x14", "asked without waiting"),
        (r"(KVM-.*mm_fault: .*addr=0x\w+)\w{4}( flags=0x1c)", r"\g<1>0000\g<2>", "in the VMM"),
    ],
)
def test_a_fault_with_other_flags_or_of_another_page(pattern: str, new: str, words: str) -> None:
    verdict = judge_capture(edit_trace(load("S29"), edit(pattern, new)), model())
    assert verdict.status is Status.FAIL and words in " ".join(f.message for f in verdict.findings)


@pytest.mark.long  # a search for an order that agrees, in vain
def test_the_token_word_that_is_left_is_the_models() -> None:
    files = packed_capture("explored-chosen-at-once")
    left = json.loads(files["after.json"])
    left["shared_token"]["3"] = 0x1003
    verdict = judge_capture({**files, "after.json": json.dumps(left).encode()}, model())
    assert [f.name for f in verdict.findings] == ["value:token"] and verdict.status is Status.FAIL


@pytest.mark.parametrize(("xor", "names"), [(0, set()), (0x1000, {"value:written"})])
@pytest.mark.long  # a search for an order that agrees, in vain
def test_what_the_guest_wrote_is_in_qemus_page(xor: int, names: set[str]) -> None:
    """A wrong page was mapped for the write, or its copy was lost: what is read back later need not show it."""
    files = packed_capture("explored-prefetch-lost-to-a-neighbour")
    left, gpa = json.loads(files["after.json"]), 0x1000000
    left["pages"][str(gpa)]["word"] = gpa ^ json.loads(files["plan.json"])["nonce"] ^ xor
    verdict = judge_capture({**files, "after.json": json.dumps(left).encode()}, model())
    assert {f.name for f in verdict.findings} == names and verdict.status is (Status.FAIL if xor else Status.PASS)


@pytest.mark.parametrize(("read", "names"), [("0xf3", {"value:msr"}), ("0x0", set())])
def test_int_reads_as_0_behind_an_init_and_the_vector_stays(read: str, names: set[str]) -> None:
    """A 7.3 that tells the vector for INT.  Its ready events have the vector of before the INIT, and so has any KVM's:
    arch/x86/kvm/x86.c:kvm_vcpu_reset leaves apf.vec."""
    files = edit_trace(
        packed_capture("init-reads-int"), edit(r"(CPU 1.* 89\.\d+: kvm_msr: msr_read 4b564d06 = )0xf3", rf"\g<1>{read}")
    )
    verdict = judge_capture(files, find_kernel("nowait-7.3"))
    assert {f.name for f in verdict.findings} == names and verdict.status is (Status.FAIL if names else Status.PASS)


@pytest.mark.parametrize(
    ("flags", "state", "names"),
    [("0x14", "D", {"unexplained:flags"}), ("0x214", "D", {"D74"}), ("0x214", "S", set())],
)
def test_a_signal_may_end_the_look_that_waits(flags: str, state: str, names: set[str]) -> None:
    """A 7.3 whose look that waits has no FOLL_INTERRUPTIBLE, one whose sleep is as if it had none, and a sound one."""
    edits = (r"(KVM-.*mm_fault: .*flags=)0x14$", flags), (r"(prev_comm=CPU \d+/KVM .*prev_state=)D\b", state)

    def edited(line: str) -> str:
        for pattern, word in edits:
            line = re.sub(pattern, rf"\g<1>{word}", line)
        return line

    files = edit_trace(packed_capture("uninterruptible-look"), lambda lines: [edited(line) for line in lines])
    verdict = judge_capture(files, find_kernel("nowait-7.3"))
    assert {f.name for f in verdict.findings} == names and verdict.status is (Status.FAIL if names else Status.PASS)
