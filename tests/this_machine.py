# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine for one test alone, among all processes that run tests."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_HOLDERS: list[None] = []
"""One for each context of this process that has the machine: who has it may ask for it again."""


@contextmanager
def this_machine_alone() -> Iterator[None]:
    """For whoever lets an agent work here, makes a cgroup or a block device, or reserves the machine: an agent changes
    page-cluster and others and puts them back, and a reservation tells of whatever is not as it was.  Tests ask for it
    by the fixture ``host_settings``, by which they are found and left to one process of pytest-xdist."""
    with ExitStack() as stack:
        if not _HOLDERS:
            file = stack.enter_context(open(Path(tempfile.gettempdir()) / "apf-tests-host-settings.lock", "w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        _HOLDERS.append(None)
        try:
            yield
        finally:
            _HOLDERS.pop()
