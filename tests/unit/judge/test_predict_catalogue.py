# SPDX-License-Identifier: GPL-2.0-or-later
"""The counts that the scenario catalogue gives, held against what the model derives from the scenario files.

The numbers are the catalogue's, in terms of N, the number of touches (or of pairs); never those of a run of the model.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.contract.gate import rule_of
from harness.contract.plan import Op, Plan, replace_index
from harness.contract.words import Release
from harness.model.kernels import find_kernel, kernel_for
from harness.model.outcomes import Count
from harness.model.simulation.situation import Prediction
from harness.prediction import predict
from harness.scenario.build import build_plan
from harness.scenario.load import load_text

SCENARIOS = Path(__file__).parents[2] / "scenarios"
N61 = ("nowait-5.10", "nowait-6.1")
N612 = ("nowait-6.12",)
NIO = ("noio-6.1",)
P1 = ("noio-6.1-p1",)
SOUND = ("nowait-6.12", "nowait-7.3")  # as of 6.12.117 and 7.3.4: without F2
NOWAIT = N61 + N612
ALL = NOWAIT + NIO + P1

Row = tuple[str, tuple[str, ...], dict[str, int | str]]
# A string is a multiple of N ("N", "2N").  ACC counts the wake-all of the one vCPU too: "N+1".
ROWS: list[Row] = [
    ("S20", ALL, {"PF": "N", "TRY": 0, "MAJ_V": 0, "MIN_V": 0, "FAST": "N", "BIO_V": 0, "BIO_W": 0}),
    ("S22", ALL, {"TRY": 0, "MIN_V": "N", "MAJ_V": 0, "PSWPIN": 0, "PGMAJ": 0}),
    ("S23", N61, {"TRY": 0, "MAJ_V": "N", "PGMAJ": "N", "PSWPIN": "N", "BIO_V": "N", "BIO_W": 0, "SYNC": "N"}),
    ("S23", N612, {"NPt": "N", "MAJ_V": 0, "PGMAJ": "N", "BIO_V": "N", "DONE": "N", "RDY": "N", "ACC": "N+1"}),
    ("S23", NIO, {"NPt": "N", "MAJ_V": 0, "BIO_V": 0, "BIO_W": "N", "RDY": "N", "ACC": "N+1", "PGMAJ": "N"}),
    ("S23", ("sync-6.1", "sync-2010"), {"TRY": 0, "MAJ_V": "N", "RDY_ALL": 0, "BIO_V": "N"}),
    ("S24", N61, {"NPt": 3, "MAJ_V": 13, "BIO_W": 0}),  # windows 8, 4, 2, then 1
    ("S24", N612, {"NPt": "N", "MAJ_V": 0, "PGMAJ": "N", "PSWPIN": 8 + 4 + 2 + 13}),
    ("S24", NIO, {"NPt": "N", "BIO_V": 0, "READ_W": 8 + 4 + 2 + 13}),
    ("S25", NOWAIT, {"NPt": "N/2", "MIN_V": "N/2", "MAJ_V": 0, "PSWPIN": "N", "RA": "N/2", "RAH": "N/2", "BIO_W": 0}),
    ("S25", NIO, {"NPt": "N/2", "MIN_V": "N/2", "MAJ_V": 0, "PSWPIN": "N", "BIO_V": 0, "BIO_W": "N"}),
    # Read at 0 (8 around it, clipped at the PMD: 5 pages), then 8 each at 5, 13 .. 37; two hits make the window 4:
    # 1000 (3 pages), 1003; three make it 8: 1007, 1015, 1023 (clipped at the PMD); no hit: 1024 with 4, 1028, 1036, ...
    ("S26", NOWAIT, {"NPt": 6 + 10, "MIN_V": 100 - 16, "PSWPIN": 100, "PGMAJ": 16, "MAJ_V": 0}),
    ("S28", NOWAIT, {"NPt": 2, "RDY": 2, "PGMAJ": 1, "REP": 0}),
    ("S29", NOWAIT, {"TRY": 2, "NPt": 1, "REP": 1, "RDY": 1, "ACC": 2}),
    ("S29", NIO, {"TRY": 1, "NPt": 1, "REP": 0, "RDY": 1, "BLOCK": 1}),
    ("S31", N61, {"TRY": 0, "MAJ_V": "N", "PGMAJ": "N", "PSWPIN": "N", "BIO_V": 0, "BIO_W": 0}),
    ("S31", N612, {"TRY": 0, "MAJ_V": "N", "PGMAJ": "N", "PSWPIN": "N", "BIO_V": "N"}),
    ("S31", NIO, {"NPt": "N", "RDY": "N", "MAJ_V": 0, "READ_V": 0}),
    ("S32", NOWAIT, {"TRY": 0, "MAJ_V": "N", "PGMAJ": "N", "PSWPIN": 0, "BIO_V": 0}),
    ("S32", NIO, {"NPt": "N", "MAJ_V": 0, "PSWPIN": 0, "BIO_W": 0}),
    ("S33", N61, {"TRY": 0, "MAJ_V": "N", "PGMAJ": "N", "PSWPIN": "N", "SWPIN_ZERO": 0, "BIO_V": "N"}),
    ("S33", N612, {"TRY": 0, "MAJ_V": "N", "PGMAJ": "N", "PSWPIN": 0, "SWPIN_ZERO": "N", "BIO_V": 0}),
    ("S33", NIO, {"NPt": "N", "BIO_V": 0, "BIO_W": "N"}),
    ("S35", NOWAIT + P1, {"TRY": 0, "SYNC": 1, "BLOCK": 1, "PSWPIN": 1}),
    ("S35", NIO, {"NPt": 1, "BLOCK": 1, "PSWPIN": 1}),
    ("S34", NOWAIT + P1, {"TRY": 0, "MAJ_V": "N", "SYNC": "N"}),  # page-cluster 0: each is a cluster miss
    ("S34", NIO, {"NPt": "N", "MAJ_V": 0, "BIO_V": 0, "BIO_W": "N"}),
    ("S36", NOWAIT, {"NPt": "N", "PGMAJ": "N", "MAJ_V": 0, "BIO_V": "N", "BIO_W": 0}),
    ("S36", NIO, {"NPt": "N", "PGMAJ": "N", "MAJ_V": 0, "BIO_V": 0, "BIO_W": "N"}),
    ("S37", NOWAIT, {"TRY": 0, "MAJ_V": "N", "PGMAJ": "N"}),
    ("S37", NIO, {"NPt": "N", "MAJ_V": 0}),
    ("S60", ALL, {"NPt": "N/2", "INJ": "N/2", "RDY": "N/2", "ACC": "N/2+1", "ACK": "N/2+1"}),
    ("S61", ALL, {"NPh": 1, "NPt": 0, "INJ": 0, "RDY": 1, "ACC": 1, "REP": 0}),
    ("S62", ALL, {"NPt": 1, "NPh": 0, "INJ": 1, "RDY": 1, "ACC": 2}),
    ("S63", ALL, {"TRY": 0, "SYNC": 1, "DONE": 0}),
    ("S11", ALL, {"RDY_ALL": 1, "ACC": 1, "PF": 0}),
    ("S38", NOWAIT, {"NPt": "N", "PGMAJ": 0, "BIO_V": 0, "BIO_OTHER": "N"}),
    ("S38", NIO, {"TRY": 0, "BLOCK": "N", "BIO_V": 0, "BIO_OTHER": "N"}),
    ("S39", NOWAIT, {"NPt": "N", "PGMAJ": "N", "MAJ_V": 0, "BIO_V": "N"}),
    ("S71", ALL, {"NPt": "N", "RDY": "N", "ACC": "N+1", "ACK": 4}),  # wake-all, two handlers, the trigger
    ("S76", NOWAIT, {"NPh": 1, "NPt": 0, "REP": 840 // 200, "RDY": 1, "ACC": 1}),
    ("S95", ALL, {"NPt": 1, "RDY": 1, "ACC": 2, "REP": 0}),
    ("S95H", ALL, {"NPh": 1, "NPt": 0, "RDY": 1, "ACC": 1}),
    ("S40", NOWAIT, {"NPt": "N", "BIO_V": "N", "MAJ_V": 0}),
    ("S66", ("nowait-6.1", "nowait-6.12", *NIO, *P1), {"NPh": 1, "NPt": 1, "RDY": 2, "ACC": 2}),
    ("S66", ("nowait-5.10",), {"NPh": 0, "NPt": 2, "RDY": 2, "ACC": 3}),  # kvm_can_deliver_async_pf: no CR0.PG test
    ("S69", ALL, {"NPt": "N", "RDY": "N", "ACC": "N+1", "DONE": "N"}),
    ("S70", ALL, {"NPt": "N", "RDY": "N", "ACC": "N+1", "ACK": 1}),
    ("S72", NOWAIT, {"TRY": 70, "NPt": 69, "FAIL": 1, "SYNC": 1, "MAJ_V": 1, "RDY": 69}),
    ("S78", NOWAIT, {"NPt": "N", "DONE": "N", "RDY": "N", "PGMAJ": 2, "RDY_ALL": 2}),
    ("S78", NIO, {"NPt": 2, "BLOCK": 1, "MIN_V": 1}),
    ("S79", ALL, {"NPt": "N", "RDY": "N", "RDY_ALL": 4, "ACC": "N+4"}),
    ("S80", ALL, {"NPt": 2, "NPh": 0, "RDY": 2, "RDY_ALL": 2, "ACC": 4, "DONE": 2}),
    ("S81", ALL, {"NPt": 2, "NPh": 1, "DONE": 3, "RDY": 1, "RDY_ALL": 2, "FAST": 2}),
    ("S82", ALL, {"NPt": 2, "RDY": 2, "ACC": 3}),
    ("S83", ALL, {"NPt": 2, "RDY": 2, "ACC": 3}),
    ("S84", ("nowait-6.1", "nowait-6.12", "noio-6.1"), {"NPt": 2, "RDY": 2, "DONE": 2, "ACC": 3}),
    ("S84R", ("nowait-6.1", "nowait-6.12", "nowait-7.3", "noio-6.1"), {"NPt": 2, "RDY": 2, "DONE": 2, "ACC": 3}),
    ("S10", NOWAIT, {"GP": 1, "NPt": 0, "NPh": 1, "DONE": 1, "RDY": 0, "PF": 2}),  # enabled, with a useless area
    ("S10", ("nowait-7.2", "nowait-7.3"), {"GP": 1, "NPt": 0, "NPh": 1, "DONE": 1, "RDY": 1, "PF": 1}),  # still off
    ("S64", ALL, {"TRY": 1, "NPh": 1, "SYNC": 1}),
    ("S140", ALL, {"NPt": "N", "RDY": "N", "RDY_ALL": 1, "MAJ_V": 2, "MAJ_W": "N", "SYNC": 0, "FAST": 0}),
    # An L2: told, each access is made again by a VMRUN and maps the page; F2: lost, repeated, mapped early in its halt;
    # F4: the same, and L2 got the #PF.  At CPL 0 (f[3] of S130) it halts everywhere.
    ("S130", SOUND, {"NPt": 3, "NPh": 1, "INJ": 0, "REP": 0, "FAST": 3, "RDY": 4, "ACC": 4, "PF_GUEST": 3}),
    ("S130", ("nowait-6.1", "nowait-7.2"), {"NPt": 3, "NPh": 1, "INJ": 0, "REP": 3, "FAST": 0, "RDY": 4, "ACC": 4}),
    ("S130", ("nowait-5.10",), {"NPt": 3, "NPh": 1, "INJ": 3, "REP": 3, "RDY": 4, "ACC": 4}),
    ("S132", (*SOUND, "nowait-5.10"), {"NPt": "N", "INJ": 0, "REP": 0, "RDY": "N", "ACC": "N+1"}),
    ("S132", ("nowait-6.1",), {"NPt": "N", "INJ": 0, "REP": "N", "RDY": "N"}),
    ("S133", (*SOUND, *N61), {"NPt": 0, "NPh": "N", "INJ": 0, "RDY": "N", "ACC": 1}),
    ("S135", SOUND, {"NPt": "N", "SYNC": 0}),
    ("S139", SOUND, {"NPt": "N", "RDY": "N", "RDY_ALL": 2, "ACC": "N+2", "INJ": 6, "REP": 0}),
    ("S135L", (*SOUND, *N61), {"TRY": 0, "SYNC": "N"}),
    ("S138", SOUND, {"NPt": "N", "RDY": "N", "ACC": "N+1"}),
]  # fmt: skip


def plan_of(name: str) -> Plan:
    path = SCENARIOS / f"{name}.toml"
    (scenario,) = load_text(path.name, path.read_text())
    return build_plan(scenario, nonce=0x1234_5678_9ABC_DEF0)


def value(want: int | str, n: int) -> int:
    if isinstance(want, int):
        return want
    base, _, more = want.partition("+")
    scaled = n // 2 if base == "N/2" else n * int(base.removesuffix("N") or 1)
    return scaled + int(more or 0)


@pytest.mark.parametrize(
    ("scenario", "kernel", "want"),
    [pytest.param(s, k, w, id=f"{s}-{k}") for s, kernels, w in ROWS for k in kernels],
)
def test_counts_of_the_catalogue(scenario: str, kernel: str, want: dict[str, int | str]) -> None:
    plan = plan_of(scenario)
    n = sum(1 for i in plan.items if i.op is Op.TOUCH)
    answer = predict(plan, find_kernel(kernel))
    got = {name: answer.totals[name] for name in want}
    assert got == {name: Count.exactly(value(w, n)) for name, w in want.items()}
    assert answer.ends
    assert consistent(answer)


def test_s84_older_kernels_lose_the_token_at_a_paging_change() -> None:
    """behaviour.md B.10: the clear drops the work without RDY, and the probe guest waits for it for ever."""
    for kernel in (find_kernel("nowait-5.10"), kernel_for("nowait", "6.1.158")):
        answer = predict(plan_of("S84"), kernel)
        assert not answer.ends
        assert answer.totals["RDY"] == Count.exactly(0)
        assert answer.totals["NPt"] == Count.exactly(1)


def test_s30_one_repeated_fault_for_each_timer_tick() -> None:
    """One repeated fault for the touch and one for each tick, until there are as many as the device waits for."""
    plan = plan_of("S30")
    rule = rule_of(plan.swap)
    assert rule is not None and rule.word is Release.REPEATED and rule.count > 1
    assert predict(plan, find_kernel("nowait-6.1")).totals["REP"] == Count.exactly(rule.count)
    late = predict(plan, find_kernel("noio-6.1"))
    assert late.totals["REP"] == Count.exactly(0)
    assert late.totals["BLOCK"] == Count.exactly(1)


def consistent(answer: Prediction) -> bool:
    """Laws that hold between the totals of one run with one timing."""
    t = {name: c.low for name, c in answer.totals.items() if c.low == c.high}
    if {"TRY", "NP", "REP", "FAIL"} <= set(t):
        assert t["TRY"] == t["NP"] + t["REP"] + t["FAIL"]  # D01
    if {"NP", "NPt", "NPh"} <= set(t):
        assert t["NP"] == t["NPt"] + t["NPh"]
    if {"PF", "FAST", "MINOR", "SYNC", "BLOCK", "NP", "REP"} <= set(t):
        assert t["PF"] == t["FAST"] + t["MINOR"] + t["SYNC"] + t["BLOCK"] + t["NP"] + t["REP"]
    return True


@pytest.mark.parametrize("kernel", [k for k in ALL if k != "sync-2010"])
def test_s21_reads_map_the_zero_page_and_writes_copy_it(kernel: str) -> None:
    answer = predict(plan_of("S21"), find_kernel(kernel))
    # 32 writes and 32 reads allocate or map the zero page; each later write copies it, is stale and comes again.
    assert answer.totals["PF"] == Count.exactly(32 + 32 + 2 * 32)
    assert answer.totals["MINOR"] == Count.exactly(3 * 32)
    assert answer.totals["FAST"] == Count.exactly(32)
    assert answer.totals["MIN_V"] == Count.exactly(96)
    assert answer.totals["TRY"] == Count.exactly(0)


def test_s21_before_read_faults_were_told_from_writes() -> None:
    answer = predict(plan_of("S21"), find_kernel("sync-2010"))
    assert answer.totals["PF"] == Count.exactly(64), "reads allocate, so the later writes do not fault"


def test_noio_neighbour_blocks_unless_the_worker_is_late() -> None:
    """S28 waits until it is not late; without that both are possible."""
    plan = plan_of("S28")
    answer = predict(plan, find_kernel("noio-6.1"))
    assert answer.totals["NPt"] == Count.exactly(1) and answer.items[2].outcome.value == "block"
    touches = (item for item in plan.items if item.op is not Op.HOST)
    hasty = replace(plan, items=tuple(replace_index(item, n) for n, item in enumerate(touches)))
    answer = predict(hasty, find_kernel("noio-6.1"))
    assert (answer.totals["NPt"].low, answer.totals["NPt"].high) == (1, 2) and answer.totals["NPt"].reason


def test_every_read_has_its_value() -> None:
    plan = plan_of("S23")
    answer = predict(plan, find_kernel("nowait-6.1"))
    for item, predicted in zip(plan.items, answer.items, strict=True):
        assert predicted.value == item.gpa ^ plan.nonce ^ 0x5555555555555555
