# SPDX-License-Identifier: GPL-2.0-or-later
"""Two faults at once: which can take an entry from each other."""

from __future__ import annotations

import pytest

from harness.model.simulation.page_tables import PageTables

TABLE, DIRECTORY = 1 << 9, 1 << 18
GFN = 5 * DIRECTORY + 3 * TABLE + 7


def collide(tables: PageTables, other: int, since_ns: int = 100, *, guest_mode: bool = False) -> bool:
    return tables.may_collide(GFN, [other], guest_mode=guest_mode, since_ns=since_ns)


@pytest.mark.parametrize("guest_mode", [False, True])
def test_a_table_is_linked_once(guest_mode: bool) -> None:
    tables = PageTables()
    assert collide(tables, GFN + 1, guest_mode=guest_mode)
    tables.link(GFN + 2, guest_mode=guest_mode, now_ns=50)
    assert not collide(tables, GFN + 1, guest_mode=guest_mode)
    assert collide(tables, GFN + 1, since_ns=50, guest_mode=guest_mode)  # it was linked meanwhile
    assert collide(tables, GFN, guest_mode=guest_mode)  # the entry of the page itself
    assert collide(tables, GFN + 1, guest_mode=not guest_mode)  # other roots
    tables.forget()
    assert collide(tables, GFN + 1, guest_mode=guest_mode)


def test_a_table_above_that_both_need() -> None:
    tables = PageTables()
    tables.link(GFN + TABLE, guest_mode=False, now_ns=0)
    assert collide(tables, GFN + 1)  # the table of its own 2 MiB is not there
    assert not collide(tables, GFN + 2 * TABLE)  # that of 1 GiB is
    assert not collide(tables, GFN + DIRECTORY)
    assert collide(PageTables(), GFN + DIRECTORY)  # not even that of 512 GiB


def test_a_huge_entry_has_no_table_below() -> None:
    tables = PageTables()
    tables.link(GFN, guest_mode=False, now_ns=0, huge=True)
    assert collide(tables, GFN + 1) and not collide(tables, GFN + TABLE)
