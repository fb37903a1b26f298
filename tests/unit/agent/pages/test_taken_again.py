# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that reclaim takes when all is over, and what is in them then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.agent.host import syscalls
from harness.agent.host.cgroup import ScenarioCgroup
from harness.agent.pages import taken_again
from harness.agent.pages.guest_memory import GuestMemory, ProcessMemory
from harness.agent.pages.pagemap import PageMap
from harness.contract import plan as p
from harness.contract.capture import FinalState, PageLeft
from tests.unit.agent.conftest import Child, make_plan, root_only


@root_only
def test_what_is_read_of_those_that_were_taken(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second page stays; what was in the first is lost on the way."""
    pages = {n * 4096: PageLeft(str(n), True, word=n) for n in (1, 2)}
    final = FinalState({}, {}, {}, {**pages, 3 * 4096: PageLeft("3", False)}, {})
    advised: list[int] = []
    emptied: list[bool] = []

    with ProcessMemory(child.pid) as memory:
        guest = GuestMemory(memory, child.address, 1)
        for gpa, page in pages.items():
            memory.write(child.address + gpa + 8, (page.word or 0).to_bytes(8, "little"))

        def page_out(_pidfd: int, ranges: Sequence[tuple[int, int]], _advice: int) -> int:
            assert emptied, "what a CPU has in a batch is not found"
            advised.extend(address - child.address for address, _ in ranges)
            memory.write(child.address + 4096 + 8, bytes(8))
            return 0

        entry = PageMap.entry
        gone = child.address + 4096
        monkeypatch.setattr(taken_again, "empty_lru_batches", lambda: emptied.append(True))
        monkeypatch.setattr(syscalls, "process_madvise", page_out)
        monkeypatch.setattr(
            PageMap, "entry", lambda self, at: replace(entry(self, at), present=at != gone and entry(self, at).present)
        )
        found = taken_again.taken_again(child.pid, guest, final, set(final.pages))
    assert advised == [4096, 2 * 4096, 2 * 4096, 2 * 4096], "what stays is asked for again"
    assert [page.again for page in found.pages.values()] == [0, None, None]


@pytest.mark.parametrize(
    ("swap", "can"),
    [
        ({"kind": p.SwapKind.GATED}, True),
        ({"kind": p.SwapKind.ZRAM}, True),
        ({"kind": p.SwapKind.DELAY}, False),
        ({"kind": p.SwapKind.USERFAULT}, False),
        ({"kind": p.SwapKind.GATED, "error": ("f[0]",)}, False),
    ],
)
def test_what_is_written_where_reads_end_at_once(swap: dict[str, object], can: bool) -> None:
    plan = make_plan(pages=3)
    items = tuple(replace(i, access=p.Access.WRITE if i.index == 1 else p.Access.READ) for i in plan.items)
    plan = replace(plan, items=items, swap=replace(plan.swap, **swap))  # type: ignore[arg-type]
    assert taken_again.can_be_taken(plan) == ({plan.pages[1].gpa} if can else set())


def test_what_is_taken_is_written_out_before_it_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = iter((3, 1, 0))
    asked: list[int] = []
    monkeypatch.setattr(taken_again, "swap_cached_pages", lambda _group: next(cached))
    monkeypatch.setattr(taken_again, "reclaim", lambda _path, size: asked.append(size))
    monkeypatch.setattr(taken_again, "drain_lru_batches", lambda: None)
    taken_again._write_out(ScenarioCgroup("/sys/fs/cgroup/apf-test"))
    assert asked == [3 * 4096, 4096]
