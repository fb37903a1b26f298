# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules and the machine under the kernel: what an emulated processor's own fault excuses, and what it cannot."""

from __future__ import annotations

from collections.abc import Callable

from harness.contract.capture import EMULATED, EMULATOR
from harness.judge.verdict import judge_capture
from harness.judge.verdict_types import Verdict
from harness.model.kernels import find_kernel
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.golden import edit_trace, load
from tests.unit.judge.packed import packed_capture

N61 = find_kernel("nowait-6.1")


def changed(*changes: tuple[str, str, str, int]) -> Callable[[list[str]], list[str]]:
    """In the line that has the first word, for the so-manyth time from 0, the second word becomes the third."""

    def change(lines: list[str]) -> list[str]:
        for where, old, new, number in changes:
            at = [n for n, line in enumerate(lines) if where in line and old in line][number]
            lines[at] = lines[at].replace(old, new)
        return lines

    return change


def judged(*changes: tuple[str, str, str, int], emulated: bool = True) -> Verdict:
    files = edit_trace(load("S61"), changed(*changes))
    if emulated:
        files["facts.json"] = files["facts.json"].replace(b"panic=-1", EMULATED.encode() + b" panic=-1")
        assert EMULATED.encode() in files["facts.json"]
    return judge_capture(files, N61)


def twice(number: int, vector: int = 0xF3) -> tuple[str, str, str, int]:
    """An exit that says that an interrupt was delivered again, as an exception."""
    return "kvm_exit", "intr_info 0x", f"intr_info 0x800003{vector:02x} and not 0x", number


def wrong_vcpu(number: int) -> tuple[str, str, str, int]:
    """A token that names another vCPU: D03."""
    return "kvm_async_pf_not_present", "000 gva", "007 gva", number


def test_a_run_in_which_a_ready_interrupt_came_twice_proves_nothing() -> None:
    verdict = judged(twice(-1))
    assert verdict.status is Status.INCONCLUSIVE and "delivered interrupt 0xf3 a second time" in verdict.reason


def test_another_interrupt_that_came_twice_explains_what_differs_and_no_more() -> None:
    verdict = judged(twice(-1, 0x40))
    assert verdict.status is Status.PASS
    assert any("all is as predicted, although the emulated processor" in note for note in verdict.notes)
    assert judged(twice(0, 0x40), wrong_vcpu(0)).status is Status.INCONCLUSIVE


def test_a_processor_that_is_not_emulated_is_not_excused() -> None:
    assert judged(twice(0, 0x40), wrong_vcpu(0), emulated=False).status is Status.FAIL


def test_a_rule_that_was_broken_before_stays_broken() -> None:
    verdict = judged(twice(-1), wrong_vcpu(0))
    assert verdict.status is Status.FAIL
    assert verdict.reason.startswith("D03") and "later emulator" in verdict.reason


def test_a_rule_that_was_broken_behind_it_may_be_its_consequence() -> None:
    verdict = judged(twice(0), wrong_vcpu(0))
    assert verdict.status is Status.INCONCLUSIVE and "did not do its part" in verdict.reason


def test_what_only_the_whole_run_shows_is_no_proof() -> None:
    """The prediction follows the whole run, and what is owed at its end may be so because of the fault."""
    verdict = judged(twice(-1), ("kvm_async_pf_ready", "kvm_async_pf_ready", "kvm_async_pf_gone", -1))
    assert verdict.status is Status.INCONCLUSIVE


def test_an_access_that_was_entered_anew_behind_its_sti_is_judged() -> None:
    """S270 on debian-6.1 under QEMU 11.1, which loads the shadow: the vCPU thread waited, as for any access in one."""
    files = packed_capture("explored-entered-anew-behind-sti")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason


def test_a_processor_that_loads_the_shadow_excuses_no_kernel_that_ignores_it() -> None:
    """The same with what a kernel would do that sees interrupts allowed: 7.2 is to blame for that, 11.1 is not."""

    def ignored(lines: list[str]) -> list[str]:
        at = next(
            n for n, line in enumerate(lines) if "kvm_page_fault: vcpu 6" in line and "0x0000000001006000" in line
        )
        tried = lines[at].partition("kvm_page_fault")[0] + "kvm_try_async_get_page: gva = 0x1006000, gfn = 0x1006"
        return [*lines[: at + 3], tried.replace("286.391737", "286.391950"), *lines[at + 3 :]]

    files = edit_trace(packed_capture("explored-entered-anew-behind-sti"), ignored)
    found = {}
    for version in ("7.2.22", "11.1.2"):
        told = files["facts.json"].replace(EMULATED.encode(), f"{EMULATED} {EMULATOR}{version}".encode())
        found[version] = judge_capture({**files, "facts.json": told}, model_of(files, "nowait"))
    assert "lost an interrupt shadow" in found["7.2.22"].reason
    assert found["11.1.2"].status is Status.FAIL
