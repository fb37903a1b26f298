# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest is offered is held against what QEMU was asked to show, bit by bit and vCPU by vCPU."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.plan import Plan, from_json
from harness.contract.probe_abi import LEAF_BITS, PAGE_SIZE, RESETS_BITS, FeaturesLeaf
from harness.evidence.decode import Evidence, decode
from harness.evidence.guestlog import GuestRecord, Record
from harness.judge.offered_features import offered_findings, offered_words
from harness.judge.verdict import judge_capture
from harness.judge.verdict_types import OFFERED
from harness.model.cpu_model import Feature
from harness.model.kernels import find_kernel
from harness.prediction import pv_features
from harness.report.explain_verdict import cited_by, explain_verdict
from harness.status import Status
from tests.unit.judge.golden import Files, edit_boots, load, of_today
from tests.unit.judge.packed import packed_capture
from tests.unit.judge.test_verdict import model

HIDDEN = packed_capture("interrupt-not-offered")
"""Of debian-6.1, with -cpu host,-kvm-asyncpf-int and two vCPUs."""
SEEN = frozenset({Feature.ASYNC_PF})
EVIDENCE = decode(HIDDEN)
CPUS = ("host", "host,-kvm-asyncpf-int", "host,-kvm-asyncpf", "host,migratable=off", "qemu64", "base", "host,kvm=off",
        "max,migratable=off,-kvm-asyncpf,-kvm-asyncpf-int", "qemu64,+kvm-asyncpf-int,-kvm-asyncpf")  # fmt: skip


def asked_for(cpu: str, files: Files = HIDDEN) -> Files:
    """The capture as if QEMU had been asked for another -cpu."""
    plan = json.loads(files["plan.json"])
    plan["guest"]["cpu"] = cpu
    return {**files, "plan.json": json.dumps(plan).encode()}


def test_a_feature_that_is_hidden_and_was_not_to_be_is_the_kernels_doing() -> None:
    assert judge_capture(HIDDEN, model()).status is Status.PASS
    verdict = judge_capture(asked_for("host"), model())
    assert verdict.status is Status.FAIL and [f.name for f in verdict.findings] == [OFFERED] * 2
    for vcpu, finding in enumerate(verdict.findings):
        assert finding.message.startswith(f"vCPU {vcpu}: CPUID 0x40000001 EAX is 0x1003afb, without")
        assert "KVM_FEATURE_ASYNC_PF_INT (bit 14)" in finding.message
        assert [str(c) for c in cited_by(verdict, finding)] == ["arch/x86/kvm/cpuid.c:__do_cpuid_func"]
    assert any("__do_cpuid_func" in line for line in explain_verdict(verdict))


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("kernel", ["nowait-6.1", "noio-6.1", "sync-6.1"])
def test_each_bit_that_is_another_is_named_of_each_vcpu_and_no_other(cpu: str, kernel: str) -> None:
    evidence = replace(EVIDENCE, plan=from_json(Plan, asked_for(cpu)["plan.json"]))
    due = pv_features(evidence.plan, find_kernel(kernel))
    wrong = {f for f in Feature if due.shows(f) is not (f in SEEN)}
    told = [f.message for f in offered_findings(evidence, find_kernel(kernel))]
    assert len(told) == 2 * len(wrong)
    for feature in wrong:
        named = [m for m in told if f"KVM_FEATURE_{feature.name} (bit {feature.value})" in m]
        assert [m.partition(":")[0] for m in named] == ["vCPU 0", "vCPU 1"]
        by = "kvm_cpuid" if feature in SEEN and kernel != "sync-6.1" else "__do_cpuid_func"
        assert all(f"arch/x86/kvm/cpuid.c:{by})" in m for m in named)


def booted(evidence: Evidence, *lives: tuple[int, int]) -> Evidence:
    """With these boots of vCPU 1: leaf and EAX of each."""
    assert evidence.guest is not None
    first, second = evidence.guest.vcpus
    boots = [
        GuestRecord(Record.BOOT, 0, 1, -1, 1, n | leaf << RESETS_BITS | eax << RESETS_BITS + LEAF_BITS)
        for n, (leaf, eax) in enumerate(lives)
    ]
    return replace(evidence, guest=replace(evidence.guest, vcpus=(first, (*boots, *second[1:]))))


@given(st.lists(st.tuples(st.sampled_from([FeaturesLeaf.FIRST, FeaturesLeaf.BEHIND]), st.integers(0, 2**32 - 1)),
                min_size=1, max_size=4))  # fmt: skip
def test_of_whatever_is_read_the_three_bits_count_whenever_the_vcpu_boots(lives: list[tuple[int, int]]) -> None:
    found = [f.message for f in offered_findings(booted(EVIDENCE, *lives), model())]
    wrong = [sum(bool(eax >> f & 1) is not (f in SEEN) for f in Feature) for _, eax in lives]
    assert len(found) == sum(wrong)
    for life, count in enumerate(wrong):
        who = f"vCPU 1, when it began anew ({life})" if life else "vCPU 1"
        assert sum(m.partition(":")[0] == who for m in found) == count


def test_a_cpuid_that_names_no_kvm_offers_nothing() -> None:
    (finding,) = offered_findings(booted(EVIDENCE, (FeaturesLeaf.NONE, 0)), model())
    assert finding.message.startswith("vCPU 1: CPUID names no KVM, without KVM_FEATURE_ASYNC_PF (bit 4)")
    assert EVIDENCE.guest is not None
    seen = list(offered_words(EVIDENCE.guest))
    assert seen == ["vCPU 0, 1: CPUID 0x40000001 EAX is 0x1003afb: ASYNC_PF"]
    off = booted(EVIDENCE, (FeaturesLeaf.NONE, 0), (FeaturesLeaf.BEHIND, 1)).guest
    assert off is not None and list(offered_words(off))[1:] == [
        "vCPU 1: CPUID names no KVM", "vCPU 1: CPUID 0x40000101 EAX is 0x1: none of async page faults",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cpu", "version", "exit_due"),
    [
        ("host", "7.2.22", False), ("host", "10.0.11", True), ("host", "", None), ("host,migratable=off", "", True),
        ("qemu64", "", False), ("host,+kvm-asyncpf-vmexit", "", True),
    ],
)  # fmt: skip
def test_of_the_exit_what_the_version_of_qemu_decides_is_not_guessed(
    cpu: str, version: str, exit_due: bool | None
) -> None:
    """No QEMU before 9.0 has a name for it."""
    assert EVIDENCE.facts is not None
    facts = replace(EVIDENCE.facts, qemu_version=version)
    plan = from_json(Plan, asked_for(cpu)["plan.json"])
    found = {}
    for shown in (False, True):
        eax = shown << Feature.ASYNC_PF_VMEXIT
        evidence = booted(replace(EVIDENCE, facts=facts, plan=plan), (FeaturesLeaf.FIRST, eax))
        told = [f for f in offered_findings(evidence, model()) if "VMEXIT" in f.message and "vCPU 1" in f.message]
        found[shown] = bool(told)
    assert found == {shown: exit_due is not None and shown is not exit_due for shown in (False, True)}


def test_a_guest_that_no_kvm_runs_or_that_is_gone_proves_nothing() -> None:
    assert EVIDENCE.facts is not None
    asked = replace(EVIDENCE, plan=from_json(Plan, asked_for("host")["plan.json"]))
    assert list(offered_findings(asked, model()))
    for other in (
        replace(asked, facts=replace(EVIDENCE.facts, accel="tcg")), replace(asked, facts=None),
        replace(asked, guest=None),
    ):  # fmt: skip
        assert not list(offered_findings(other, model()))


def test_an_older_capture_is_judged_as_before_and_one_of_today_must_say_it() -> None:
    old = load("S61")
    assert judge_capture(old, model()).status is Status.PASS
    today = of_today(old)
    assert judge_capture(today, model()).status is Status.PASS
    log = edit_boots(today["guest/log.bin"], lambda resets, _: (resets, 0))
    assert log == old["guest/log.bin"] and len(log) > PAGE_SIZE
    verdict = judge_capture({**today, "guest/log.bin": log}, model())
    assert verdict.status is Status.INCONCLUSIVE and "does not say which features KVM offers" in verdict.reason


def test_it_convicts_where_the_trace_lost_events_too_and_stands_first() -> None:
    stats = json.loads(HIDDEN["trace/stats.json"])
    next(iter(stats["cpus"].values()))["overrun"] = 0
    next(iter(stats["cpus"].values()))["dropped_events"] = 3
    lost = {**HIDDEN, "trace/stats.json": json.dumps(stats).encode()}
    assert judge_capture(lost, model()).status is Status.INCONCLUSIVE
    verdict = judge_capture(asked_for("host", lost), model())
    assert verdict.status is Status.FAIL and verdict.findings[0].name == OFFERED
    whole = judge_capture(asked_for("host,+kvm-pv-enforce-cpuid,-kvm-asyncpf"), model())  # its MSRs were not refused
    assert [f.name for f in whole.findings][:2] == [OFFERED] * 2 and "total:GP" in {f.name for f in whole.findings}
