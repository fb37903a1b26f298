# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has this machine alone."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path

from tests.this_machine import this_machine_alone


def another_may() -> bool:
    """Whether another process would have the machine now."""
    with open(Path(tempfile.gettempdir()) / "apf-tests-host-settings.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_who_has_it_may_ask_again_and_keeps_it_until_the_last_is_done() -> None:
    with this_machine_alone():
        with this_machine_alone():
            assert not another_may()
        assert not another_may()
