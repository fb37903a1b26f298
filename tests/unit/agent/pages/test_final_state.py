# SPDX-License-Identifier: GPL-2.0-or-later
"""What is found in another process after a run, and what killed agents left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.agent.host import resident
from harness.agent.host.undo import Journal
from harness.agent.pages.final_state import inspect_after
from harness.agent.pages.guest_memory import GuestMemory, ProcessMemory
from harness.contract import plan as p
from harness.contract.capture import AreaLeft
from tests.unit.agent.conftest import Child, make_plan, root_only


@root_only
def test_after(child: Child) -> None:
    """Page 0 of the child stands for the shared area, page 1 was written, page 12 was not."""
    pages = (
        p.Page(p.SHARED_GPA + 4096, p.PageStart.POPULATED, "w"),
        p.Page(p.SHARED_GPA + 12 * 4096, p.PageStart.UNTOUCHED, "u"),
    )
    plan = replace(make_plan(pages=0), pages=pages)
    with ProcessMemory(child.pid) as memory:
        guest = GuestMemory(memory, child.address - p.SHARED_GPA, 1)
        memory.write(child.address, bytes([1] * 8) + bytes(56))
        found = inspect_after(plan, child.pid, guest, None)
        assert found.shared_tail_zero == {0: True}
        assert found.shared_flags == found.shared_token == {0: 0x01010101}
        assert [found.pages[page.gpa].present for page in pages] == [True, False]
        assert [found.pages[page.gpa].on_list for page in pages] in ([True, None], [None, None]), (
            "no way to empty batches"
        )
        assert [found.pages[page.gpa].charged for page in pages] == [None, None], "of no group that we know"
        memory.write(child.address + 4096 + 8, bytes(range(1, 9)))
        looked = inspect_after(plan, child.pid, guest, None)
        assert [looked.pages[page.gpa].word for page in pages] == [0x0807060504030201, None]
        memory.write(child.address + 4096, bytes(4096))
        moved = replace(plan, items=(p.Item(0, p.Op.WRMSR, msr=0x4B564D02, value=p.SHARED_GPA + 0x1000 | 9),))
        memory.write(child.address + 4096, b"\x02" + bytes(63))
        assert inspect_after(moved, child.pid, guest, None).areas == {p.SHARED_GPA + 4096: AreaLeft(2, 0, True)}
        memory.write(child.address + 8, b"\x01")
        assert inspect_after(plan, child.pid, guest, None).shared_tail_zero == {0: False}


@root_only
def test_what_is_held_is_let_go_before_an_area_is_read(child: Child) -> None:
    """A read of the area by the agent would wait for ever for a page that only the plan's word lets come."""
    pages = (p.Page(p.SHARED_GPA + 12 * 4096, p.PageStart.UNTOUCHED, "area"),)
    write = p.Item(0, p.Op.WRMSR, msr=0x4B564D02, value=pages[0].gpa | 9)
    plan = replace(make_plan(pages=0), pages=pages, items=(write,))
    with ProcessMemory(child.pid) as memory:
        guest = GuestMemory(memory, child.address - p.SHARED_GPA, 1)

        def comes() -> None:
            memory.write(child.address + 12 * 4096, b"\x07" + bytes(63))

        found = inspect_after(plan, child.pid, guest, None, comes)
    assert not found.pages[pages[0].gpa].present, "looked at before"
    assert found.areas == {pages[0].gpa: AreaLeft(7, 0, True)}


def test_what_a_killed_agent_left_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_JOURNALS", f"{tmp_path}/serve-")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = {}
    for pid in (dead.pid, os.getpid()):
        left[pid] = tmp_path / f"left-{pid}"
        Journal(f"{tmp_path}/serve-{pid}.journal").change("directory", path=str(left[pid]))
        left[pid].mkdir()
    resident.clean_up()
    assert not left[dead.pid].exists() and left[os.getpid()].exists()
    assert [path.name for path in tmp_path.glob("*.journal")] == [f"serve-{os.getpid()}.journal"]
