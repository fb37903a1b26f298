# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine for one test alone, among all processes that run tests."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def this_machine_alone() -> Iterator[None]:
    """For whoever lets an agent work here, makes a cgroup or a block device, or reserves the machine: an agent changes
    page-cluster and others and puts them back, and a reservation tells of whatever is not as it was."""
    with open(Path(tempfile.gettempdir()) / "apf-tests-host-settings.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
