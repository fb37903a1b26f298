# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent is killed (SIGKILL) at every journalled step in turn, on this machine under TCG: the next reservation puts
everything back.  Before a step is noted the one before has been made; when it is noted, it has not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.agent.host.machine_state import changes, machine_state
from harness.contract import plan as p
from tests.unit.agent.conftest import REPOSITORY, make_plan, needs_qemu, root_only
from tests.unit.waiting import HANG_S

pytestmark = [root_only, needs_qemu]

KILLER = """
import os, signal, sys
from harness.agent.host import undo
number, when, seen = int(sys.argv[1]), sys.argv[2], sys.argv[3]
noted = undo.Journal.change

def change(self, kind, **args):
    with open(seen, "a") as file:
        print(kind, file=file)
    at = len(open(seen).readlines())
    if at == number and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = noted(self, kind, **args)
    if at == number and when == "noted":
        os.kill(os.getpid(), signal.SIGKILL)
    return result

undo.Journal.change = change
open(seen, "w").close()
from harness.agent.__main__ import main
sys.exit(main(sys.argv[4:]))
"""
SETTINGS = {"/proc/sys/vm/page-cluster": "5", "/proc/sys/vm/swappiness": "61"}
"""Other values than the agent wants, so that each is a step."""


@pytest.mark.long
def test_killed_at_each_step(tmp_path: Path, probe_elf: Path, host_settings: None) -> None:
    """The plan reads missing pages by userfaultfd: settings, and a server that its end must not leave behind."""
    plan = replace(make_plan(p.PageStart.UNTOUCHED), swap=p.Swap(kind=p.SwapKind.USERFAULT))
    (tmp_path / "plan.json").write_text(p.to_json(plan))
    (tmp_path / "killer.py").write_text(KILLER)
    old = {path: Path(path).read_text() for path in SETTINGS}
    try:
        for path, value in SETTINGS.items():
            Path(path).write_text(value)
        before = machine_state()
        every = perform(tmp_path, probe_elf, 0, "never")
        assert len(every) >= 4 and "userfaultfd" in every, every
        assert changed(before) == []
        for number in range(1, len(every) + 1):
            for when in ("before", "noted"):
                seen = perform(tmp_path, probe_elf, number, when)
                assert len(seen) == number, f"{when} {number}: the agent went on to {seen}"
                assert json.loads(next_run(tmp_path).splitlines()[-1])["released"] == []
                assert changed(before) == [], f"killed {when} {seen[-1]}, step {number} of {len(every)}"
                assert not leftover(tmp_path), f"killed {when} {seen[-1]}, step {number} of {len(every)}"
    finally:
        for path, value in old.items():
            Path(path).write_text(value)


def perform(folder: Path, probe: Path, number: int, when: str) -> list[str]:
    """The kinds of changes that were noted, or about to be, until the agent was killed or had ended."""
    out = folder / "state/killed/plan"
    (folder / "state/killed/scope").mkdir(parents=True, exist_ok=True)
    words = ["perform", "--plan", str(folder / "plan.json"), "--out", str(out), "--probe", str(probe), "--accel", "tcg"]
    done = subprocess.run(
        [sys.executable, str(folder / "killer.py"), str(number), when, str(folder / "seen"), *words, "--detached"],
        cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, timeout=HANG_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == (-signal.SIGKILL if number else 0), done.stderr
    return (folder / "seen").read_text().split()


def next_run(folder: Path) -> str:
    """What the next run's reservation does."""
    words = [sys.executable, "-m", "harness.agent", "reserve", "--name", "next", "--state", str(folder / "state")]
    done = subprocess.run(
        words, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changed(before: dict[str, str]) -> list[str]:
    """But block devices and cgroups, of which other tests have their own."""
    found = changes(before, machine_state())
    return [text for text in found if not text.startswith(("block device", "cgroups "))]


def leftover(folder: Path) -> list[str]:
    """Processes of the plan: its QEMU, its server."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder / "state/killed") in command or str(folder / "killer.py") in command:
            found.append(command)
    return found


def test_an_agent_that_is_not_undone_is_seen(tmp_path: Path, probe_elf: Path, host_settings: None) -> None:
    """The test above can fail: without the next run something is left."""
    old = {path: Path(path).read_text() for path in SETTINGS}
    try:
        for path, value in SETTINGS.items():
            Path(path).write_text(value)
        (tmp_path / "plan.json").write_text(p.to_json(make_plan()))
        (tmp_path / "killer.py").write_text(KILLER)
        before = machine_state()
        seen = perform(tmp_path, probe_elf, 2, "noted")
        assert seen == ["write", "write"]
        # Switching huge pages off changes this, too (mm/khugepaged.c:set_recommended_min_free_kbytes).
        left = [text for text in changed(before) if not text.startswith("/proc/sys/vm/min_free_kbytes ")]
        assert len(left) == 1
        next_run(tmp_path)
        assert changed(before) == []
    finally:
        for path, value in old.items():
            Path(path).write_text(value)
