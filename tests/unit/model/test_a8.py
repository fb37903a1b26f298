# SPDX-License-Identifier: GPL-2.0-or-later
"""Every row of table A.8, read and write, every variant, comes out of running the steps."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from harness.errors import ModelError
from harness.model.kernels import KernelModel, find_kernel
from harness.model.outcomes import Outcome
from harness.model.readahead import ReadaheadState
from harness.model.walk.access import AccessWalk, walk_access
from harness.model.walk.function_names import name_in
from harness.model.walk.page_states import page_in_state
from harness.model.walk.steps import STEP_FUNCTIONS, Counters, Environment, Thread, VcpuView
from tests.unit.model.a8 import ROWS, Row

KERNELS = {
    "sync": ("sync-2010",),
    "v7": ("noio-v7-bugs",),
    "n61": ("nowait-5.10", "nowait-6.1"),
    "n612": ("nowait-6.12",),
}
CASES = [
    pytest.param(row, access, column, kernel, cell, id=f"{row.number}-{row.backing}-{row.state}-{access}-{kernel}-{i}")
    for i, row in enumerate(ROWS)
    for access in row.accesses
    for column, kernels in KERNELS.items()
    for kernel in kernels
    if (cell := row.cells.get(f"{column}.{access}") or row.cells[column])
]


def walk(row: Row, access: str, kernel: str, vcpu: VcpuView | None = None) -> AccessWalk:
    return walk_access(
        find_kernel(kernel), page_in_state(row.backing, row.state, **row.options), write=access == "W", vcpu=vcpu,
        env=Environment(**row.env), readahead=ReadaheadState(**row.readahead),
    )  # fmt: skip


def submitter(told: AccessWalk) -> str:
    """V if V's fault submitted the reads, W if the worker did; - if nobody."""
    if told.fault.reads:
        return "V"
    return "W" if len(told.phases) > 1 and told.phases[1].reads else "-"


def spte(told: AccessWalk) -> str:
    leg = told.fault.end
    return "2m" if leg.huge else "rw" if leg.writable else "ro"


def facts(told: AccessWalk) -> dict[str, object]:
    names = {"zero": "swpin_zero"}
    counters = {"V": told.fault.counters, "W": told.counters(Thread.W)}
    found: dict[str, object] = {
        "by": submitter(told), "spte": spte(told), "end": told.fault.end.end, "errno": told.fault.end.errno,
        "anon": int(told.page.swap is None and told.page.pte == "writable"),
        "prefetch_waits": len(told.phases[2].waits) if len(told.phases) > 2 else 0,
    }  # fmt: skip
    for who, moved in counters.items():
        for key in ("maj", "min", "pgmaj", "pswpin", "ra", "rah", "zero"):
            found[f"{who}.{key}"] = getattr(moved, names.get(key, key))
    return found


def check(told: AccessWalk, cell: str) -> None:
    outcome, *claims = cell.split()
    want = Outcome.TOKEN if outcome == "APF" else Outcome[outcome]
    assert told.outcome is want, [s.function + ": " + s.result for s in told.fault.steps]
    got = facts(told)
    for claim in claims:
        key, _, value = claim.partition("=")
        assert str(got[key]) == value, f"{key}: {got[key]}, table says {value}"


@pytest.mark.parametrize(("row", "access", "column", "kernel", "cell"), CASES)
def test_cell(row: Row, access: str, column: str, kernel: str, cell: str) -> None:
    check(walk(row, access, kernel), cell)


def test_all_rows_are_there() -> None:
    assert sorted({row.number for row in ROWS}) == list(range(1, 46))
    assert len(CASES) > 350


@pytest.mark.parametrize(("row", "access", "column", "kernel", "cell"), [c for c in CASES if c.values[4][:3] == "APF"])
def test_without_apf(row: Row, access: str, column: str, kernel: str, cell: str) -> None:
    """The sentence under A.8's heading: when kvm_can_do_async_pf is false, V waits for the I/O itself."""
    told = walk(row, access, kernel, VcpuView(can_do=False))
    moved = told.fault.counters
    if row.options.get("userfaultfd") or row.state in ("swapcache-locked", "cache-locked"):
        assert told.outcome is Outcome.BLOCK and not told.fault.reads
    else:
        assert told.outcome is Outcome.SYNC and submitter(told) == "V"
        assert (moved.maj, moved.pgmaj) == (1, 1)


# --- ports of noio to 6.1: section F, "Observable differences" and "Same in both" ------------------------------------

SAME_IN_BOTH = {*range(1, 7), 22, 23, *range(26, 32), *range(38, 46)}
PORTS = ("noio-6.1", "noio-6.1-p1")
PORT_CASES = [
    pytest.param(row, access, port, id=f"{row.number}-{row.backing}-{row.state}-{access}-{port}-{i}")
    for i, row in enumerate(ROWS)
    for access in row.accesses
    for port in PORTS
]


@pytest.mark.parametrize(("row", "access", "port"), PORT_CASES)
def test_port(row: Row, access: str, port: str) -> None:
    told, nowait = walk(row, access, port), walk(row, access, "nowait-6.1")
    if row.number in SAME_IN_BOTH - {27, 29, 39, 43}:
        assert told.outcome is nowait.outcome
        assert told.fault.counters == replace(nowait.fault.counters, pgfault=told.fault.counters.pgfault)
    elif row.number in (7, 16, 25):
        assert told.outcome is Outcome.BLOCK and not told.fault.reads
    elif row.number in (8, 9, 10, 11, 12, 13, 14, 18, 19, 20, 21, 35, 43) or (row.number == 29):
        assert told.outcome is Outcome.TOKEN
        assert not told.fault.reads and told.fault.counters == Counters(pgfault=1)
    elif row.number == 24:
        assert told.outcome is (Outcome.TOKEN if port == "noio-6.1" else Outcome.SYNC)
    elif row.number == 37 or row.options.get("userfaultfd"):
        assert told.outcome is (Outcome.TOKEN if port == "noio-6.1" else Outcome.BLOCK)
    elif row.number == 17:
        assert told.outcome is nowait.outcome
    else:
        assert row.number in (15, 27, 32, 33, 34, 36, 39)
        assert told.outcome is nowait.outcome


def test_port_p2_waits_with_mmap_lock_held_and_p1_without() -> None:
    """X8, X12: the neighbour in flight."""
    page = page_in_state("anon", "swapcache-locked")
    for port, held, moved in (("noio-6.1", True, (0, 1)), ("noio-6.1-p1", False, (1, 0))):
        told = walk_access(find_kernel(port), page, write=False)
        (wait,) = told.fault.waits
        assert wait.mmap_lock_held is held and wait.state == "D"
        assert (told.fault.counters.maj, told.fault.counters.min) == moved


def test_refused_major_fault_is_enomem_by_itself() -> None:
    """A.0.6: VM_FAULT_ERROR is a mask, OOM is tested first."""
    for kernel in ("noio-v7", "noio-6.1", "noio-6.1-p1"):
        assert walk_access(find_kernel(kernel), page_in_state("anon", "swapped"), write=False).fault.end.errno == -12


SHMEM_ON_ZRAM = page_in_state("shmem", "swapped", synchronous=True)


def test_shared_memory_on_a_synchronous_device_is_read_by_the_thread_that_asks() -> None:
    """mm/shmem.c:shmem_swapin_folio: from 6.14 on the page alone, before with read-ahead; by V, as nothing waits."""
    for kernel, alone in (("nowait-6.12", False), ("nowait-7.3", True)):
        told = walk_access(find_kernel(kernel), SHMEM_ON_ZRAM, write=False)
        functions = {step.function for phase in told.phases for step in phase.steps}
        assert ("shmem_swap_alloc_folio" in functions) is alone
        assert ("swap_cluster_readahead" in functions) is not alone
        assert submitter(told) == "V"


def test_every_step_function_is_reached() -> None:
    told = [walk(row, access, k) for row, access, _, k, _ in (c.values for c in CASES)]
    told += [walk(row, access, k) for row, access, k in (c.values for c in PORT_CASES)]
    told += [walk(row, access, k, VcpuView(can_do=False)) for row, access, _, k, _ in (c.values for c in CASES)]
    written = page_in_state("file", "read-only")  # no row of the table writes to it
    told += [walk_access(find_kernel(k), written, write=True) for k in KERNELS["n61"]]
    told.append(walk_access(find_kernel("nowait-7.3"), SHMEM_ON_ZRAM, write=False))  # no row of the table is on zram
    reached = {step.citation.split(" (")[0] for t in told for phase in t.phases for step in phase.steps}
    walked = [find_kernel(k) for kernels in KERNELS.values() for k in kernels] + [find_kernel("noio-6.1")]
    assert not {here for here in STEP_FUNCTIONS if not reached & names(walked, *here)}


def names(kernels: list[KernelModel], file: str, function: str) -> set[str]:
    """What a function of the model is called in those of the kernels that have it."""
    found = set()
    for kernel in kernels:
        with suppress(ModelError):
            found.add(":".join(name_in(kernel, file, function)))
    return found
