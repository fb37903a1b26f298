# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests start with."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from harness.run.ending import ENDING

# No test fails because the machine is busy.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell without job control ignores SIGINT for what it puts into the background, and children inherit that: the tests
# that press Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """At the end of a command, which is that of its process, they are ignored; a test that calls one goes on."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, action in before.items():
        signal.signal(number, action)
