# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest is swapped out while nothing of QEMU runs."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.agent.guest import linux_run
from harness.agent.pages.pageout import PreconditionFailed
from harness.agent.session import Session


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def comes_to(pid: int, states: str) -> str:
    for _ in range(500):
        if (found := state_of(pid)) in states:
            break
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("fails", [False, True])
def test_qemu_is_held_still_until_the_totals_are_read(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """Its own threads would bring back what is swapped out, into the swap cache, and the totals with it."""
    seen = []

    def looks(group: object) -> dict[str, int]:
        seen.append(comes_to(qemu.pid, "T"))
        if fails:
            raise PreconditionFailed("1 pages stay in the swap cache")
        return {}

    monkeypatch.setattr(linux_run, "swap_everything_out", looks)
    monkeypatch.setattr(linux_run, "_totals", looks)
    monkeypatch.setattr(linux_run, "_write_precondition", lambda session, totals: seen.append("written"))
    group = SimpleNamespace(stat=lambda: {"anon": 4096})
    session: Any = SimpleNamespace(group=group, capture=SimpleNamespace(step=lambda *_: None))
    with subprocess.Popen(["sleep", "60"]) as qemu:
        try:
            linux_run._swap_out(cast(Session, session), qemu.pid)
        except PreconditionFailed:
            assert fails
        after = comes_to(qemu.pid, "SR")
        qemu.kill()
    assert seen == (["T"] if fails else ["T", "T", "written"]) and after in "SR"
