# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import json

import pytest

from harness.contract.words import Access, Op


def test_the_wire_numbers_of_ops_are_what_probe_guests_know_since_the_first() -> None:
    """Captures hold items files: a number that moved would make them say something else."""
    assert {op.value: op.number for op in Op} == {
        "touch": 0, "wrmsr": 1, "lapic": 2, "paging": 3, "timer": 4, "clear-token": 5, "pause": 6, "wait": 7, "host": 8,
        "reset": 9, "page-fault": 10, "init": 11, "eject": 12, "after": 13,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [Op, Access])
def test_a_word_with_a_number_is_still_a_word(kind: type[Op] | type[Access]) -> None:
    for member in kind:
        assert kind(str(member)) is member
        assert json.loads(json.dumps({member: member})) == {member.value: member.value}
    assert len({member.number for member in kind}) == len(kind)
