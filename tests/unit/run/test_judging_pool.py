# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing goes on judging when whoever asked for it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from harness.errors import InfraFault
from harness.run.judging_pool import judging_pool
from tests.unit.waiting import HANG_S, is_gone, wait_until

_ASKS = """
import os, signal, time
from harness.run.judging_pool import judging_pool

def judges(number):
    print(os.getpid(), flush=True)
    time.sleep(600)

for each in (signal.SIGTERM, signal.SIGINT):  # the latter is ignored by what a shell runs in the background
    signal.signal(each, signal.default_int_handler)
with judging_pool() as pool:
    list(pool.map(judges, range(100)))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_its_processes_end_with_whoever_asked(how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", _ASKS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as asks:
        assert asks.stdout is not None
        worker = int(asks.stdout.readline())
        try:
            asks.send_signal(how)
            asks.wait(HANG_S)
        finally:
            asks.kill()
        wait_until(lambda: is_gone(worker), "a process of the pool outlives who has asked it")


def test_a_process_that_is_killed_is_told() -> None:
    with pytest.raises(InfraFault, match="was killed"), judging_pool() as pool:
        pool.submit(os._exit, 1).result(HANG_S)


def test_what_was_asked_comes_in_order() -> None:
    with judging_pool() as pool:
        assert list(pool.map(abs, range(-9, 0))) == list(range(9, 0, -1))
