# SPDX-License-Identifier: GPL-2.0-or-later
"""What KVM offers a guest in CPUID, as the probe guest reads it when a vCPU boots.

A guest can write the MSRs of what it is not offered (arch/x86/kvm/cpuid.h:guest_pv_has), and the probe guest does, so
nothing else of a run tells whether it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.contract.plan import GuestKind, Plan
from harness.contract.probe_abi import FeaturesLeaf, Record
from harness.evidence.decode import Evidence
from harness.evidence.guestlog import GuestLog, LoggedBoot, boot_of
from harness.judge.verdict_types import OFFERED, Finding
from harness.model.cpu_model import Feature, names_vmexit
from harness.model.kernels import KernelModel
from harness.prediction import pv_features

_RULE, _ABOUT = OFFERED.split(":")
OFFERED_BY, GIVEN_BY = "arch/x86/kvm/cpuid.c:__do_cpuid_func", "arch/x86/kvm/cpuid.c:kvm_cpuid"


def offered_findings(evidence: Evidence, kernel: KernelModel) -> Iterator[Finding]:
    """Each bit that a vCPU has and was not to have, or the other way round, whenever it booted."""
    facts, plan = evidence.facts, evidence.plan
    if plan.guest.kind is not GuestKind.PROBE or evidence.guest is None or facts is None or facts.accel != "kvm":
        return
    due = due_features(plan, kernel, facts.qemu_version)
    for vcpu, life, boot in _boots(evidence.guest):
        who = f"vCPU {vcpu}" if not life else f"vCPU {vcpu}, when it began anew ({life})"
        for feature, shown in due.items():
            if bool(boot.features & 1 << feature) is not shown:
                yield Finding(_RULE, f"{who}: {_words(plan, kernel, boot, feature)}", about=_ABOUT)


def due_features(plan: Plan, kernel: KernelModel, qemu_version: str) -> Mapping[Feature, bool]:
    """Which bits a guest of this plan is to have; without one that the version of QEMU tells, if that is unknown."""
    named = names_vmexit(qemu_version)
    ways = [pv_features(plan, kernel, vmexit_named=way) for way in ((False, True) if named is None else (named,))]
    told = {feature: {way.shows(feature) for way in ways} for feature in Feature}
    return {feature: next(iter(shown)) for feature, shown in told.items() if len(shown) == 1}


def _boots(log: GuestLog) -> Iterator[tuple[int, int, LoggedBoot]]:
    """Each boot of each vCPU, and how many were before it; none of a guest of before format 8, which reads nothing."""
    for vcpu, records in enumerate(log.vcpus):
        found = (boot_of(record) for record in records if record.kind is Record.BOOT)
        yield from ((vcpu, life, boot) for life, boot in enumerate(found) if boot.leaf != FeaturesLeaf.NOT_READ)


def offered_words(log: GuestLog) -> Iterator[str]:
    """For people: which vCPUs read which value, and what of it is about async page faults."""
    by_value: dict[tuple[int, int], dict[int, None]] = {}
    for vcpu, _, boot in _boots(log):
        by_value.setdefault((boot.leaf, boot.features), {})[vcpu] = None
    for (leaf, eax), vcpus in by_value.items():
        who = f"vCPU {', '.join(map(str, vcpus))}"
        if leaf == FeaturesLeaf.NONE:
            yield f"{who}: CPUID names no KVM"
            continue
        names = ", ".join(feature.name for feature in Feature if eax & 1 << feature) or "none of async page faults"
        yield f"{who}: CPUID {_leaf(leaf):#x} EAX is {eax:#x}: {names}"


def _leaf(leaf: int) -> int:
    return 0x40000101 if leaf == FeaturesLeaf.BEHIND else 0x40000001


def _words(plan: Plan, kernel: KernelModel, boot: LoggedBoot, feature: Feature) -> str:
    """Who has it wrong: QEMU gives a guest what its -cpu asks for and KVM offers."""
    has = bool(boot.features & 1 << feature)
    name, cpu = f"KVM_FEATURE_{feature.name} (bit {feature.value})", f"-cpu {plan.guest.cpu}"
    read = f"CPUID {_leaf(boot.leaf):#x} EAX is {boot.features:#x}"
    if boot.leaf == FeaturesLeaf.NONE:
        read = "CPUID names no KVM"
    if not has:
        return f"{read}, without {name}, which {cpu} shows where KVM offers it ({OFFERED_BY})"
    if not kernel.has_apf:
        return f"{read}, with {name}, which this kernel does not have ({OFFERED_BY})"
    return f"{read}, with {name}, which {cpu} hides ({GIVEN_BY})"
