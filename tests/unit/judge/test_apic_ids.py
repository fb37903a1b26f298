# SPDX-License-Identifier: GPL-2.0-or-later
"""A run of S381 on noio-6.1, whose vCPUs have the APIC ids 0, 1, 2, 4 and 5, and what another topology makes of it."""

from __future__ import annotations

import json
import re

import pytest

from harness.contract.plan import Plan, from_json
from harness.errors import CaptureDamaged
from harness.evidence.agreement import program_problems
from harness.evidence.decode import decode
from harness.judge.protocol_check import check
from harness.judge.verdict import judge_capture
from harness.model.events import INIT, Kind
from harness.model.kernels import find_kernel
from harness.prediction import situation_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture

KERNEL = find_kernel("noio-6.1")
IDS = (0, 1, 2, 4, 5)


def test_it_is_as_predicted() -> None:
    verdict = judge_capture(packed_capture("apic-ids"), KERNEL)
    assert verdict.status is Status.PASS, verdict.findings


def test_what_names_an_id_is_of_its_vcpu() -> None:
    evidence = decode(packed_capture("apic-ids"))
    assert situation_of(evidence.plan, KERNEL).vcpu_ids == IDS
    tokens = {e.vcpu: e.token & 0xFFF for e in evidence.of(Kind.NP)}
    assert tokens == {3: 4, 4: 5}
    accepted = {(e.vcpu, e.data) for e in evidence.of(Kind.ACC)}
    assert accepted == set(enumerate(IDS))
    assert [e.vcpu for e in evidence.of(Kind.CLEAR) if e.value == INIT] == [3]
    assert evidence.guest is not None and [log[0].a for log in evidence.guest.vcpus] == list(IDS)


def test_numbers_of_vcpus_in_the_tokens_are_a_finding() -> None:
    """vcpu_idx in the place of vcpu_id."""
    files = packed_capture("apic-ids")
    trace = files["trace/events.txt"].decode()
    of_another = re.sub(r"(token 0x[1-9]00)([45]) ", lambda m: f"{m[1]}{IDS.index(int(m[2]))} ", trace)
    checked = check(decode({**files, "trace/events.txt": of_another.encode()}), KERNEL)
    told = [f.message for f in checked.findings if f.rule == "D03"]
    assert len(told) == trace.count("kvm_async_pf_not_present")
    assert "vCPU 3: token 0x1003 is not (1..0xFFFFF) << 12 | 0x4" in told


def test_a_plan_without_gaps_is_not_this_ones() -> None:
    files = packed_capture("apic-ids")
    plan = json.loads(files["plan.json"])
    plan["guest"]["cores"] = 0
    with pytest.raises(CaptureDamaged, match="APIC id 4"):
        decode({**files, "plan.json": json.dumps(plan).encode()})
    (told,) = program_problems(from_json(Plan, json.dumps(plan)), files["guest/items.bin"])
    assert "another APIC ids than the plan's: (0, 1, 2, 4, 5) instead of (0, 1, 2, 3, 4)" in told
