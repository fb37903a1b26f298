# SPDX-License-Identifier: GPL-2.0-or-later
"""One agent, many plans: real processes, the real probe guest under TCG."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.agent.ending_signals import ENDING
from harness.agent.host.undo import Journal, pending
from harness.contract import plan as p
from harness.contract.service import AgentOptions, PlanRequest, line_of
from tests.unit.agent.conftest import make_plan, needs_qemu, root_only
from tests.unit.waiting import HANG_S, is_gone, wait_until

pytestmark = [needs_qemu, root_only]


class Server:
    """A serving agent."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.agent", "serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def send(self, plan: p.Plan, out: Path, probe: Path, patience: float = 1.0) -> None:
        options = AgentOptions(str(out), probe=str(probe), accel="tcg", patience=patience)
        self.send_line(line_of(PlanRequest(plan, options)))

    def send_line(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def until(self, key: str, value: object = None) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told: dict[str, Any] = json.loads(line)
            if key in told and (value is None or told[key] == value):
                return told
        raise AssertionError(f"no {key}")


@pytest.fixture
def server(host_settings: None) -> Iterator[Server]:
    found = Server()
    yield found
    found.process.kill()
    found.process.wait()
    for stream in (found.process.stdin, found.process.stdout, found.process.stderr):
        assert stream is not None
        stream.close()


def end_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "end.json").read_text())
    return found


def test_a_guest_may_take_as_long_to_boot_as_is_told(server: Server, tmp_path: Path, probe_elf: Path) -> None:
    """By itself more than a minute; here none: on a busy machine it was ready before it was first looked at."""
    out = tmp_path / "one"
    server.send(make_plan(), out, probe_elf, patience=0.0)
    server.until("served")
    end = end_of(out)
    assert end["status"] == "guest-timeout" and "was not ready within 0 s" in end["reason"]


def test_two_plans_and_rubbish_between_them(server: Server, tmp_path: Path, probe_elf: Path) -> None:
    for n in (1, 2):
        plan = replace(make_plan(), nonce=n)
        server.send(plan, tmp_path / str(n), probe_elf)
        assert server.until("served") == {"served": 0, "stderr": "", "undone": True}
        assert (end_of(tmp_path / str(n))["nonce"], end_of(tmp_path / str(n))["status"]) == (n, "done")
        server.send_line('{"plan": 7}')
        assert server.until("served")["served"] == 2
    assert server.process.stdin is not None
    server.process.stdin.close()
    assert server.process.wait(HANG_S) == 0


@pytest.mark.parametrize("how", ["closed input", "SIGTERM", "SIGKILL"])
def test_an_end_in_the_middle_undoes_everything(how: str, server: Server, tmp_path: Path, probe_elf: Path) -> None:
    endless = p.Item(index=1, op=p.Op.PAUSE, pause_us=4_000_000_000)
    plan = make_plan()
    plan = replace(plan, items=(plan.items[0], endless), deadline_s=300)
    server.send(plan, tmp_path / "out", probe_elf)
    server.until("step", "go")
    qemu = int(json.loads((tmp_path / "out/facts.json").read_text())["run"]["qemu_pid"])
    if how == "closed input":
        assert server.process.stdin is not None
        server.process.stdin.close()
    else:
        os.kill(server.process.pid, getattr(signal, how))
    server.process.wait(HANG_S)
    wait_until((tmp_path / "out/end.json").exists, "the end of the run")
    assert (end_of(tmp_path / "out")["status"], end_of(tmp_path / "out")["undone"]) == ("error", True)
    assert pending(str(tmp_path / "out/journal.jsonl")) == []
    assert is_gone(qemu)


def test_a_killed_performer_is_cleaned_up_after(server: Server, tmp_path: Path, probe_elf: Path) -> None:
    endless = p.Item(index=1, op=p.Op.PAUSE, pause_us=4_000_000_000)
    plan = make_plan()
    server.send(replace(plan, items=(plan.items[0], endless), deadline_s=300), tmp_path / "out", probe_elf)
    server.until("step", "go")
    assert pending(str(tmp_path / "out/journal.jsonl"))
    performer = int(Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text())
    qemu = int(json.loads((tmp_path / "out/facts.json").read_text())["run"]["qemu_pid"])
    os.kill(performer, signal.SIGKILL)
    assert server.process.wait(HANG_S) == 3
    assert pending(str(tmp_path / "out/journal.jsonl")) == []
    assert not list(Path("/run").glob(f"apf-serve-{performer}-*.journal"))
    wait_until(lambda: is_gone(qemu), "QEMU's end")


def test_the_next_request_may_come_early(server: Server, tmp_path: Path, probe_elf: Path) -> None:
    for n in (1, 2):
        server.send(replace(make_plan(), nonce=n), tmp_path / str(n), probe_elf)
    for n in (1, 2):
        assert server.until("served") == {"served": 0, "stderr": "", "undone": True}
        assert end_of(tmp_path / str(n))["nonce"] == n


def test_signals_do_not_end_the_undoing(server: Server, tmp_path: Path, probe_elf: Path) -> None:
    """Whoever reserved the machine sends SIGTERM to both processes, when they were told to end already, too."""
    stays = tmp_path / "stays"
    stays.mkdir()
    (stays / "file").touch()
    out = tmp_path / "out"
    out.mkdir()
    Journal(str(out / "journal.jsonl")).change("directory", path=str(stays))
    server.send(make_plan(), out, probe_elf)
    server.until("step", "undo")
    performer = int(Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text())
    for number in (*ENDING, *ENDING):
        for pid in (server.process.pid, performer):
            os.kill(pid, number)
    (stays / "file").unlink()
    assert server.until("served")["undone"] is True
    assert server.process.wait(HANG_S) == 0
    assert (end_of(out)["status"], end_of(out)["undone"]) == ("done", True)
    assert not stays.exists()
    assert not list(Path("/run").glob(f"apf-serve-{performer}-*.journal"))
