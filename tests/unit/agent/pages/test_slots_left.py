# SPDX-License-Identifier: GPL-2.0-or-later
"""What swapoff(2) says of the slots that are taken."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from harness.agent.pages import slots_left


def _answers(monkeypatch: pytest.MonkeyPatch, error: OSError | None, used: int = 0) -> None:
    def within(_seconds: float, _call: Callable[[], None], _what: str) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(slots_left, "within", within)
    monkeypatch.setattr(slots_left, "used_pages", lambda _device: used)


def test_a_device_that_is_given_back_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, None, used=7)
    assert slots_left.slots_left("/dev/ours") == 0


def test_a_slot_without_a_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, TimeoutError(errno.ETIMEDOUT, "swapoff was not through"), used=7)
    assert slots_left.slots_left("/dev/ours") == 7


def test_without_such_a_device_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slots_left.slots_left("") is None
    _answers(monkeypatch, OSError(errno.EINVAL, "no swap area"))
    assert slots_left.slots_left("/dev/ours") is None
    _answers(monkeypatch, OSError(errno.EPERM, "not ours"))
    with pytest.raises(PermissionError):
        slots_left.slots_left("/dev/ours")
