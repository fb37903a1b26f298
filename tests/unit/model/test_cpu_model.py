# SPDX-License-Identifier: GPL-2.0-or-later
"""-cpu strings, and what the probe guest then meets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract import plan as p
from harness.model.cpu_model import Feature, names_vmexit, parse_cpu
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count, Outcome
from harness.prediction import predict, pv_features

ENFORCE = ",+kvm-pv-enforce-cpuid"


@pytest.mark.parametrize(
    ("text", "shown"),  # ASYNC_PF, ASYNC_PF_INT, ASYNC_PF_VMEXIT
    [
        ("host", (True, True, False)),
        ("max,migratable=off", (True, True, True)),
        ("qemu64", (True, False, False)),
        ("qemu64,+kvm_asyncpf_int", (True, True, False)),
        ("host,kvm-asyncpf=off", (False, True, False)),
        ("host,-kvm-asyncpf-int,+kvm-asyncpf-int", (True, False, False)),
        ("host,kvm=off", (False, False, False)),
        ("base", (False, False, False)),
        ("base,+kvm-asyncpf,kvm-asyncpf-int=on", (True, True, False)),
    ],
)
def test_what_a_cpu_string_shows(text: str, shown: tuple[bool, bool, bool]) -> None:
    cpu = parse_cpu(text)
    assert (cpu.async_pf, cpu.async_pf_int, cpu.async_pf_vmexit) == shown and not cpu.enforced
    assert parse_cpu(text + ENFORCE).enforced and parse_cpu(text + ",kvm-pv-enforce-cpuid=on").enforced


@pytest.mark.parametrize(
    ("version", "named"),
    [
        ("7.2.22", False), ("8.2.10", False), ("8.2.50", None), ("8.2.91", None), ("9.0.0", True), ("10.0.11", True),
        ("7.2.22 (Debian 1:7.2+dfsg-7)", False), ("", None), ("own", None), ("9", None),
    ],
)  # fmt: skip
def test_which_qemu_has_a_name_for_the_exit(version: str, named: bool | None) -> None:
    assert names_vmexit(version) is named


@given(
    st.sampled_from(["host", "max", "qemu64", "EPYC", "base"]),
    st.dictionaries(st.sampled_from([f.flag for f in Feature]), st.booleans()), st.booleans(), st.booleans(),
)  # fmt: skip
def test_what_is_named_is_shown_as_it_is_named(name: str, flags: dict[str, bool], kvm: bool, named: bool) -> None:
    """Whatever the model, its name for a feature decides; without any KVM nothing is shown; and which QEMU it is
    decides of the exit alone."""
    text = ",".join(
        (name, *(f"{'+' if on else '-'}{flag}" for flag, on in flags.items()), f"kvm={'on' if kvm else 'off'}")
    )
    plan = p.Plan(
        scenario="cpu", title="", nonce=7, guest=p.Guest(memory_mib=96, cpu=text), memory=p.Memory(p.Backing.ANON),
        swap=p.Swap(p.SwapKind.NONE), pages=(), items=(),
    )  # fmt: skip
    features = pv_features(plan, find_kernel("nowait-6.1"), vmexit_named=named)
    for feature in Feature:
        if not kvm:
            assert not features.shows(feature)
        elif feature.flag in flags:
            assert features.shows(feature) is flags[feature.flag]
        elif name == "base":
            assert not features.shows(feature)
    other = pv_features(plan, find_kernel("nowait-6.1"), vmexit_named=not named)
    assert {f for f in Feature if features.shows(f) is not other.shows(f)} <= {Feature.ASYNC_PF_VMEXIT}
    none = pv_features(plan, find_kernel("sync-6.1"), vmexit_named=named)
    assert not any(map(none.shows, Feature))


@pytest.mark.parametrize(
    ("cpu", "en_flags", "gps", "outcome"),
    [
        ("host,-kvm-asyncpf-int", 9, 0, Outcome.TOKEN),  # hidden, and usable all the same
        ("host,-kvm-asyncpf-int" + ENFORCE, 9, 3, Outcome.HALT),  # INT written and read, EN with bit 3
        ("host,-kvm-asyncpf" + ENFORCE, 9, 2, Outcome.HALT),  # EN written and read
        ("host" + ENFORCE, 13, 1, Outcome.HALT),  # EN with bit 2
        ("host" + ENFORCE, 9, 0, Outcome.TOKEN),
        ("host,kvm=off" + ENFORCE, 9, 4, Outcome.HALT),
    ],
)
def test_features_hidden_one_by_one(cpu: str, en_flags: int, gps: int, outcome: Outcome) -> None:
    guest = p.Guest(memory_mib=96, cpu=cpu, apf=replace(p.Apf(), en_flags=en_flags))
    plan = p.Plan(
        scenario="cpu", title="", nonce=7, guest=guest, memory=p.Memory(p.Backing.FILE, share=True),
        swap=p.Swap(p.SwapKind.DELAY, delay_ms=200), pages=(p.Page(p.POOL_GPA, p.PageStart.DROPPED, "f[0]"),),
        items=(p.Item(0, p.Op.TOUCH, gpa=p.POOL_GPA, page="f[0]"),),
    )  # fmt: skip
    answer = predict(plan, find_kernel("nowait-6.1"))
    assert answer.totals["GP"] == Count.exactly(gps) and answer.items[0].outcome is outcome
    assert predict(plan, find_kernel("sync-6.1")).totals["GP"] == Count.exactly(4)
