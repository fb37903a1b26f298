# SPDX-License-Identifier: GPL-2.0-or-later
"""What a fault does to the pages beside its own: fault-around, the next read-ahead, holes, the zero map."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import plan as p
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count, Outcome
from harness.model.simulation.simulate import simulate
from harness.model.simulation.situation import Prediction
from harness.prediction import predict, situation_of

N510, N61, N612, NIO = "nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1"
FILE = p.Memory(p.Backing.FILE, share=True)
DROPPED, HOLE = p.PageStart.DROPPED, p.PageStart.UNTOUCHED
SWAPPED, ZERO = p.PageStart.SWAPPED, p.PageStart.ZERO_SWAPPED


def gpa(n: int) -> int:
    return p.POOL_GPA + n * p.PAGE_SIZE


def ask(kernel: str, starts: dict[int, p.PageStart], touches: list[tuple[int, str]], **fields: object) -> Prediction:
    """Touches (page, "r" or "w"), each waited for and well after the one before it."""
    fields.setdefault("memory", p.Memory())
    items = tuple(
        p.Item(n, p.Op.TOUCH, gpa=gpa(page), page=f"f[{page}]", wait=True, pause_us=50_000,
               access=p.Access.WRITE if how == "w" else p.Access.READ)
        for n, (page, how) in enumerate(touches)
    )  # fmt: skip
    pages = tuple(p.Page(gpa(n), start, f"f[{n}]") for n, start in starts.items())
    plan = p.Plan(scenario="beside", title="", nonce=7, guest=p.Guest(memory_mib=96),
                  swap=p.Swap(p.SwapKind.DELAY, delay_ms=400),
                  items=items, pages=pages, **fields)  # type: ignore[arg-type] # fmt: skip
    return predict(plan, find_kernel(kernel))


def outcomes(answer: Prediction) -> list[str]:
    assert not any(i.also for i in answer.items)
    return [i.outcome.value for i in answer.items]


@pytest.mark.parametrize("kernel", [N510, N61, N612, NIO])
def test_fault_around_maps_the_aligned_block_read_only(kernel: str) -> None:
    """mm/memory.c:do_fault_around: 16 pages, aligned to 16."""
    run = dict.fromkeys(range(20), DROPPED)
    touches = [(4, "w"), (2, "r"), (3, "r"), (3, "w"), (15, "r"), (16, "r")]
    answer = ask(kernel, run, touches, memory=FILE)
    assert outcomes(answer) == ["token", "minor", "fast", "minor", "fast", "minor"]
    assert answer.items[3].faults == Count.exactly(1)


@pytest.mark.parametrize("kernel", [N510, N61, N612])
def test_the_page_with_pg_readahead_is_not_mapped_by_its_neighbours_and_reads_ahead(kernel: str) -> None:
    """The window of f[0] is f[-16] to f[15], its marker f[8]; the hit on it submits f[16] and what follows."""
    run = dict.fromkeys(range(40), DROPPED)
    answer = ask(kernel, run, [(0, "r"), (7, "r"), (9, "r"), (8, "r")], memory=FILE)
    assert outcomes(answer) == ["token", "minor", "fast", "minor"]
    assert answer.totals["BIO_V"] == Count.exactly(2) and answer.totals["READ_V"] == Count.exactly(16 + 32)
    ahead = ask(kernel, run, [(0, "r"), (8, "r"), (20, "r")], memory=FILE)
    assert outcomes(ahead) == ["token", "minor", "token"] and ahead.items[2].issuer == ""


@pytest.mark.parametrize(("kernel", "want"), [(N61, ["sync"] * 2), (N612, ["sync"] * 2), (NIO, ["token"] * 2)])
def test_a_hole_is_major_but_nothing_is_read(kernel: str, want: list[str]) -> None:
    """fs/ext4/readpage.c zero-fills it: it is unlocked when filemap_fault looks, so nothing is asynchronous."""
    answer = ask(kernel, {0: HOLE, 300: HOLE}, [(0, "w"), (300, "r")], memory=FILE)
    assert outcomes(answer) == want
    assert answer.totals["PGMAJ"] == Count.exactly(2)
    assert answer.totals["BIO_V"] == answer.totals["BIO_W"] == Count.exactly(0)


def test_a_read_of_a_dropped_page_fills_the_holes_of_its_window() -> None:
    answer = ask(N61, {0: DROPPED, 60: HOLE, 70: HOLE}, [(60, "r"), (70, "r"), (0, "w")], memory=FILE)
    assert outcomes(answer) == ["sync", "minor", "token"]


def test_isolated_synchronous_reads_never_stop_read_around() -> None:
    """The retry of a read takes back what it mapped (filemap_map_pages); that of a write takes nothing back (noio: the
    refused attempt before it has not looked at the page cache)."""
    starts = {32 + 160 * n: DROPPED for n in range(104)}
    for how, last in (("r", 32), ("w", 1)):
        items = tuple(
            p.Item(n, p.Op.TOUCH, gpa=gpa(page), page=f"f[{n}]", wait=True, cpl=0, interrupts=False,
                   access=p.Access.WRITE if how == "w" else p.Access.READ)
            for n, page in enumerate(starts)
        )  # fmt: skip
        pages = tuple(p.Page(gpa(n), s, f"f[{n}]") for n, s in starts.items())
        plan = p.Plan(scenario="misses", title="", nonce=7, guest=p.Guest(memory_mib=96),
                      swap=p.Swap(p.SwapKind.DELAY, delay_ms=5),
                      memory=FILE, items=items, pages=pages)  # fmt: skip
        answer = predict(plan, find_kernel(NIO))
        assert {i.outcome for i in answer.items} == {Outcome.SYNC}
        assert answer.totals["READ_V"] == Count.exactly(100 * 32 + 4 * last), how


def test_the_zero_map_answers_for_each_page_by_itself() -> None:
    """6.12, mm/page_io.c:swap_read_folio_zeromap: the neighbour that held zeroes needs no I/O, the target does."""
    starts = {n: ZERO if n % 2 else SWAPPED for n in range(8)}
    answer = ask(N612, starts, [(4, "r"), (3, "r"), (2, "r")])
    assert outcomes(answer) == ["token", "minor", "minor"]
    assert answer.totals["PSWPIN"] == Count.exactly(3) and answer.totals["SWPIN_ZERO"] == Count.exactly(4)
    target = ask(N612, starts, [(3, "r"), (4, "r"), (5, "r")])
    assert outcomes(target)[0] == "sync" and target.totals["PSWPIN"] == Count.exactly(4)
    assert ask(N61, starts, [(4, "r")]).totals["PSWPIN"] == Count.exactly(7)


@pytest.mark.parametrize(("kernel", "want"), [(N510, "minor"), (N61, "minor"), (N612, "no-fault")])
def test_a_page_that_the_vcpu_thread_read_by_itself_is_writable_from_6_12_on(kernel: str, want: str) -> None:
    """mm/memory.c:do_swap_page, 6.12: pte_mkwrite for an exclusive page, whatever the fault was."""
    items = tuple(
        p.Item(n, p.Op.TOUCH, gpa=gpa(0), page="f[0]", wait=True, cpl=0, interrupts=False, access=access)
        for n, access in enumerate((p.Access.READ, p.Access.WRITE))
    )
    plan = p.Plan(scenario="rw", title="", nonce=7, guest=p.Guest(memory_mib=96),
                  swap=p.Swap(p.SwapKind.DELAY, delay_ms=200),
                  memory=p.Memory(), items=items, pages=(p.Page(gpa(0), SWAPPED, "f[0]"),))  # fmt: skip
    assert outcomes(predict(plan, find_kernel(kernel))) == ["sync", want]


def test_two_workers_may_both_miss_what_the_first_of_them_reads() -> None:
    """noio: mm/filemap.c:filemap_fault counts PGMAJFAULT before it reads ahead; the second one's read-ahead finds the
    pages there.  Later, when the read has long been submitted, the second finds the folio."""
    starts = dict.fromkeys(range(8), DROPPED)
    for pause_us, high in ((0, 2), (200_000, 1)):
        items = tuple(p.Item(n, p.Op.TOUCH, gpa=gpa(n), page=f"f[{n}]", pause_us=pause_us * n) for n in range(2))
        pages = tuple(p.Page(gpa(n), s, f"f[{n}]") for n, s in starts.items())
        plan = p.Plan(scenario="both", title="", nonce=7, guest=p.Guest(memory_mib=96),
                      swap=p.Swap(p.SwapKind.DELAY, delay_ms=400),
                      memory=FILE, items=items, pages=pages)  # fmt: skip
        answer = predict(plan, find_kernel(NIO))
        assert (answer.totals["PGMAJ"].low, answer.totals["PGMAJ"].high) == (1, high)


def test_read_around_is_one_bio_per_run_of_missing_pages() -> None:
    """page_cache_ra_unbounded: a page that is cached already ends the batch before it."""
    apart = ask(N61, {32: DROPPED, 33: p.PageStart.POPULATED}, [(32, "w")], memory=FILE)
    assert apart.totals["BIO_V"] == Count.exactly(2) and apart.totals["READ_V"] == Count.exactly(31)
    assert ask(N61, {32: DROPPED, 33: DROPPED}, [(32, "w")], memory=FILE).totals["BIO_V"] == Count.exactly(1)


@pytest.mark.parametrize(("beside", "hits"), [(5, 15), (10, 16), (14, 13), (15, 14)])
def test_fault_around_takes_back_a_miss_for_each_page_below_the_pool_too(beside: int, hits: int) -> None:
    """The first read-around brings the hole below f[0], which fault-around finds: how many of a block are cached hangs
    by where the RAM file is mapped.  61 misses less the hits and 100 more: the rest read their page alone
    (mm/filemap.c:do_sync_mmap_readahead)."""
    isolated = [40 * n for n in range(125)]
    order = [*isolated[:61], 3, *isolated[61:]]
    items = tuple(p.Item(n, p.Op.TOUCH, gpa=gpa(k), page=f"f[{k}]", wait=True) for n, k in enumerate(order))
    pages = tuple(p.Page(gpa(n), DROPPED, f"f[{n}]") for n in sorted(order))
    plan = p.Plan(
        scenario="below", title="", nonce=7, guest=p.Guest(memory_mib=96), swap=p.Swap(p.SwapKind.DELAY, delay_ms=400),
        items=items, pages=pages, memory=FILE,
    )  # fmt: skip
    answer = predict(plan, find_kernel(NIO), ram_vpn=0x7F0000000 + beside)
    alone = 125 - 61 - (100 - 61 + hits)
    assert answer.totals["READ_W"] == Count.exactly(16 + 32 * (124 - alone) + alone)


def test_fault_around_is_aligned_in_the_vmms_address_space() -> None:
    """A RAM file that QEMU maps one page below a multiple of 64 KiB: page 0 is the last of its block."""
    items = tuple(p.Item(n, p.Op.TOUCH, gpa=gpa(page), page=f"f[{page}]", wait=True, cpl=0, interrupts=False)
                  for n, page in enumerate((32, 33)))  # fmt: skip
    pages = tuple(p.Page(gpa(n), DROPPED, f"f[{n}]") for n in (32, 33))
    plan = p.Plan(scenario="base", title="", nonce=7, guest=p.Guest(memory_mib=96),
                  swap=p.Swap(p.SwapKind.DELAY, delay_ms=100),
                  memory=FILE, items=items, pages=pages)  # fmt: skip
    for ram_vpn, second in ((0x7F0000000, {"fast", "block"}), (0x7F0000000 - 1, {"minor", "block"})):
        item = predict(plan, find_kernel(N61), ram_vpn=ram_vpn).items[1]
        assert {item.outcome.value, *(o.value for o in item.also)} == second
    item = predict(plan, find_kernel(N61), orders=1).items[1]  # before a run nobody knows
    assert {item.outcome.value, *(o.value for o in item.also)} == {"fast", "minor", "block"}


N72, N73 = "nowait-7.2", "nowait-7.3"


def window_of_eight(kernel: str, offsets: dict[int, int], error: tuple[str, ...] = ()) -> Prediction:
    """One fault whose read-ahead brings eight pages, at these offsets of the swap device; {}: nobody knows them.

    Nothing is asynchronous where the read of a page fails, so that the guest ends there.
    """
    pages = tuple(p.Page(gpa(n), SWAPPED, f"f[{n}]") for n in range(16))
    item = p.Item(0, p.Op.TOUCH, gpa=gpa(8), page="f[8]", wait=True)
    swap = p.Swap(p.SwapKind.DELAY, delay_ms=400, page_cluster=3)
    if error:
        item = replace(item, cpl=0, interrupts=False, wait=False)
        swap = p.Swap(p.SwapKind.GATED, page_cluster=3, release="np", error=error)
    plan = p.Plan(scenario="joined", title="", nonce=7, guest=p.Guest(memory_mib=96), memory=p.Memory(),
                  swap=swap, items=(item,), pages=pages)  # fmt: skip
    situation = situation_of(plan, find_kernel(kernel))
    placed = tuple(
        replace(pool, page=replace(pool.page, swap=replace(pool.page.swap, offset=offsets[n])))
        if pool.page.swap and offsets else pool
        for n, pool in enumerate(situation.pages)
    )  # fmt: skip
    return simulate(replace(situation, pages=placed, swap_offsets_known=bool(offsets)))


def test_reads_of_one_window_are_joined_where_they_follow_on_each_other_on_the_device() -> None:
    """mm/page_io.c:swap_add_folio of 7.3; up to 7.2 each page is a bio of its own."""
    in_a_row = {n: 100 + n for n in range(16)}
    assert window_of_eight(N73, in_a_row).totals["BIO_V"] == Count.exactly(1)
    assert window_of_eight(N72, in_a_row).totals["BIO_V"] == Count.exactly(8)
    one_gap = {n: 100 + n + 5 * (n > 8) for n in range(16)}
    assert window_of_eight(N73, one_gap).totals["BIO_V"] == Count.exactly(2)
    backwards = {n: 200 - n for n in range(16)}
    assert window_of_eight(N73, backwards).totals["BIO_V"] == Count.exactly(8)
    for offsets in (in_a_row, backwards):
        assert window_of_eight(N73, offsets).totals["READ_V"] == Count.exactly(8)


def test_pages_of_one_bio_fail_together() -> None:
    """mm/page_io.c:swap_read_end of 7.3: the error of a neighbour is that of the page that was asked for."""
    in_a_row = {n: 100 + n for n in range(16)}
    one_gap = {n: 100 + n + 5 * (n > 8) for n in range(16)}
    for kernel, offsets, outcome in (
        (N72, in_a_row, Outcome.SYNC),
        (N73, in_a_row, Outcome.ERROR),
        (N73, one_gap, Outcome.SYNC),
    ):
        assert window_of_eight(kernel, offsets, error=("f[9]",)).items[0].outcome is outcome


def test_before_a_run_nobody_knows_what_is_joined() -> None:
    unknown = window_of_eight(N73, {}).totals["BIO_V"]
    assert (unknown.low, unknown.high) == (1, 8) and "share a bio" in unknown.reason
    assert window_of_eight(N72, {}).totals["BIO_V"] == Count.exactly(8)


def test_before_a_run_nobody_knows_which_neighbours_fail() -> None:
    def told(kernel: str, offsets: dict[int, int], *error: str) -> bool:
        return any("share its bio" in note for note in window_of_eight(kernel, offsets, error=error).notes)

    assert told(N73, {}, "f[9]")
    assert not told(N73, {}), "no page fails"
    assert not told(N72, {}, "f[9]"), "each page is a bio of its own"
    assert not told(N73, {n: 100 + n for n in range(16)}, "f[9]"), "where they are is known"
