# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent undoes everything, whatever it meets and whoever is impatient meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from harness.agent.ending_signals import ENDING
from harness.agent.host.undo import Journal, pending
from tests.unit.agent.conftest import make_plan, needs_qemu, root_only
from tests.unit.agent.test_perform import Run
from tests.unit.agent.test_perform import perform as perform

pytestmark = [needs_qemu, root_only]


def test_an_error_that_nobody_has_foreseen_is_told_and_everything_is_undone(
    perform: Callable[..., Run], tmp_path: Path
) -> None:
    """A file of the kernel says something else than it ever did: in a mount namespace of the agent's own."""
    (tmp_path / "file").write_text("junk")
    mount = f'mount --bind {tmp_path}/file /proc/sys/vm/page-cluster && exec "$@"'
    run = perform(make_plan(), around=["unshare", "-m", "sh", "-c", mount, "sh"])
    end = run.end()
    assert (end["status"], end["undone"]) == ("error", True)
    assert end["reason"].startswith("ValueError: invalid literal for int()")
    assert run.process.returncode == 3
    assert (tmp_path / "file").read_text() == "junk", "what had been written to it is taken back"
    kept = (run.out / "host/traceback.txt").read_text()
    assert kept.startswith("Traceback") and "note_guest" in kept and kept in run.errors()


def test_signals_do_not_end_the_undoing(perform: Callable[..., Run], tmp_path: Path) -> None:
    """A terminal sends one for each Ctrl-C, a session that is closed two different ones; here a change resists until
    all have come, each twice."""
    stays = tmp_path / "stays"
    stays.mkdir()
    (stays / "file").touch()
    journal = Journal(str(tmp_path / "journal"))
    journal.change("directory", path=str(stays))
    run = perform(make_plan(), "--journal", journal.path)
    run.until_step("undo")
    for number in (*ENDING, *ENDING):
        run.process.send_signal(number)
    (stays / "file").unlink()
    end = run.end()
    assert (end["status"], end["undone"]) == ("done", True)
    assert run.process.returncode == 0
    assert not stays.exists() and pending(journal.path) == []
    assert os.path.exists(journal.path)
