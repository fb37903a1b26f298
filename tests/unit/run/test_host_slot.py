# SPDX-License-Identifier: GPL-2.0-or-later
"""A tainted host is replaced; a host that cannot be started is given up with the first cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.errors import DeadlineExpired, HostLost, InfraFault
from harness.hosts.base import Host, HostDescription
from harness.hosts.local import LocalMachine
from harness.hosts.performer import Payload
from harness.hosts.reservation import Reservation
from harness.hosts.reserved_host import ReservedHost
from harness.run.host_slot import HostSlot

PAYLOAD = Payload(Path("agent"), Path("probe"))


class Unasked(Reservation):
    """A reservation without a machine: only where its kernel's log ends is asked."""

    def __init__(self) -> None:
        pass

    def mark(self) -> int:
        return 0


class Starts:
    """Starts hosts on which nothing is run, or fails as told."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.open = 0
        self.started = 0

    @contextmanager
    def __call__(self) -> Iterator[Host]:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.started += 1
        self.open += 1
        try:
            yield ReservedHost(HostDescription("local", "hardware", "6.1", ""), LocalMachine(), Unasked())
        finally:
            self.open -= 1


def test_one_host_for_many_until_it_is_tainted() -> None:
    starts = Starts()
    with HostSlot(starts, PAYLOAD) as slot:
        first = slot.performer()
        assert slot.performer() is first
        assert slot.host is not None
        slot.host.taint("it had an oops")
        assert slot.performer() is not first
        assert starts.started == 2
        assert starts.open == 1
    assert starts.open == 0


def test_given_up_after_two_failures_with_the_first_cause() -> None:
    starts = Starts(DeadlineExpired("no sign of life"), HostLost("gone"))
    with HostSlot(starts, PAYLOAD) as slot:
        with pytest.raises(DeadlineExpired):
            slot.performer()
        with pytest.raises(HostLost):
            slot.performer()
        for _ in range(2):
            with pytest.raises(InfraFault, match="no sign of life"):
                slot.performer()
    assert starts.started == 0


def test_one_failure_is_forgiven() -> None:
    starts = Starts(HostLost("gone"), None, HostLost("gone again"), None)
    with HostSlot(starts, PAYLOAD) as slot:
        with pytest.raises(HostLost):
            slot.performer()
        slot.performer()
        assert slot.host is not None
        slot.host.taint("x")
        with pytest.raises(HostLost):
            slot.performer()
        slot.performer()
    assert starts.open == 0
