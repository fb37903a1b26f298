# SPDX-License-Identifier: GPL-2.0-or-later
"""-cpu strings, and what the probe guest then meets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import plan as p
from harness.model.cpu_model import parse_cpu
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count, Outcome
from harness.prediction import predict

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
    ],
)
def test_what_a_cpu_string_shows(text: str, shown: tuple[bool, bool, bool]) -> None:
    cpu = parse_cpu(text)
    assert (cpu.async_pf, cpu.async_pf_int, cpu.async_pf_vmexit) == shown and not cpu.enforced
    assert parse_cpu(text + ENFORCE).enforced and parse_cpu(text + ",kvm-pv-enforce-cpuid=on").enforced


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
