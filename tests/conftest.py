# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests start with."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from harness.run.ending import ENDING
from tests.long_tests import listed
from tests.this_machine import this_machine_alone

# No test fails because the machine is busy.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell without job control ignores SIGINT for what it puts into the background, and children inherit that: the tests
# that press Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-alike", action="store_true", help="what tests/long.txt lists is not long: to measure it")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What tests/long.txt lists is long.  What has this machine alone comes first: pytest-xdist deals out the tests in
    order, and takes from the end of who has most left, so that one process has them all and none waits for another.

    :raise pytest.UsageError: it lists a test that is not there, of a file that was read whole.
    """
    items.sort(key=lambda item: "host_settings" not in getattr(item, "fixturenames", ()))
    if config.getoption("--all-alike"):
        return
    long = listed()
    for item in items:
        if item.nodeid in long:
            item.add_marker(pytest.mark.long)
    if not any("::" in arg for arg in config.args):
        files = {item.nodeid.split("::")[0] for item in items}
        gone = {node for node in long if node.split("::")[0] in files} - {item.nodeid for item in items}
        if gone:
            raise pytest.UsageError(f"take out of tests/long.txt, or let `make long` write it: {sorted(gone)}")


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """At the end of a command, which is that of its process, they are ignored; a test that calls one goes on."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, action in before.items():
        signal.signal(number, action)


@pytest.fixture
def host_settings() -> Iterator[None]:
    """See this_machine_alone()."""
    with this_machine_alone():
        yield
