# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests start with."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from harness.run.ending import ENDING
from tests.cpu_times import NODE, SPENT, listed, spent_by_now

# No test fails because the machine is busy.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell without job control ignores SIGINT for what it puts into the background, and children inherit that: the tests
# that press Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What tests/long.txt lists is long.

    :raise pytest.UsageError: it lists a test that is not there, of a file that was read whole.
    """
    long = listed()
    for item in items:
        if item.nodeid in long:
            item.add_marker(pytest.mark.long)
    if not any("::" in arg for arg in config.args):
        files = {item.nodeid.split("::")[0] for item in items}
        gone = {node for node in long if node.split("::")[0] in files} - {item.nodeid for item in items}
        if gone:
            raise pytest.UsageError(f"tests/long.txt lists what is not there (`make long` writes it): {sorted(gone)}")


_BEGAN = pytest.StashKey[float]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    item.stash[_BEGAN] = spent_by_now()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    by_itself = item.get_closest_marker("long") is not None and item.nodeid not in listed()
    if call.when == "teardown" and not by_itself:
        item.user_properties += [(NODE, item.nodeid), (SPENT, f"{spent_by_now() - item.stash[_BEGAN]:.3f}")]


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """At the end of a command, which is that of its process, they are ignored; a test that calls one goes on."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, action in before.items():
        signal.signal(number, action)
