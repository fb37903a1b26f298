# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's time stamp counter."""

from __future__ import annotations

import mmap

import pytest

from harness.hosts.virtual.machine_tsc import tsc_khz


def test_two_measurements_are_of_one_counter() -> None:
    first = tsc_khz.__wrapped__()
    assert first > 100_000
    assert abs(tsc_khz.__wrapped__() - first) * 1000 < first


def test_where_no_memory_may_be_made_executable_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> object:
        raise PermissionError

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert tsc_khz.__wrapped__() == 0
