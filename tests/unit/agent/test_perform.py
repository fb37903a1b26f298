# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole runs of the agent with the real probe guest under TCG, and what goes wrong on purpose."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from harness.agent.host.undo import pending
from harness.agent.host.userfault import has_userfaultfd
from harness.agent.pages.page_content import page_content
from harness.contract import plan as p
from harness.contract.capture import FORMAT
from harness.contract.probe_abi import RESETS_BITS
from harness.evidence.texts import console_problems, mark_problems, qmp_problems
from tests.unit.agent.conftest import make_plan, needs_qemu, root_only
from tests.unit.waiting import HANG_S, wait_until

pytestmark = [needs_qemu, root_only, pytest.mark.usefixtures("host_settings")]

SETTINGS = ("/proc/sys/vm/page-cluster", "/proc/sys/vm/swappiness", "/sys/kernel/mm/transparent_hugepage/enabled")


class Run:
    """One agent process on a plan."""

    def __init__(
        self, folder: Path, plan: p.Plan, probe: Path, *extra: str, around: Sequence[str] = ()
    ) -> None:  # fmt: skip
        self.out = folder / "out"
        (folder / "plan.json").write_text(p.to_json(plan))
        argv = [
            *around, sys.executable, "-m", "harness.agent", "perform", "--plan", str(folder / "plan.json"),
            "--out", str(self.out), "--probe", str(probe), "--accel", "tcg", *extra,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def until_step(self, step: str) -> dict[str, Any]:
        """Read progress until this step."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told: dict[str, Any] = json.loads(line)
            if told["step"] == step:
                return told
        raise AssertionError(f"no step {step!r}: {self.errors()}")

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self) -> dict[str, Any]:
        """end.json, after the agent has ended by itself."""
        if self.process.stdout is not None:
            for _line in self.process.stdout:
                pass  # stdin stays open meanwhile: its end would end the agent
        self.process.wait(HANG_S)
        return self.json("end.json")

    def json(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / name).read_text())
        return found

    def qemu_pid(self) -> int:
        return int(self.json("facts.json")["run"]["qemu_pid"])


@pytest.fixture
def perform(tmp_path: Path, probe_elf: Path, host_settings: None) -> Any:
    """Start an agent; afterwards the host's settings are what they were, the journal is clean and QEMU is gone."""
    before = [Path(s).read_text() for s in SETTINGS if Path(s).exists()]
    runs: list[Run] = []

    def start(plan: p.Plan, *extra: str, probe: Path = probe_elf, around: Sequence[str] = ()) -> Run:
        runs.append(Run(tmp_path, plan, probe, *extra, around=around))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
        run.process.communicate()
        assert pending(str(run.out / "journal.jsonl")) == []
    assert [Path(s).read_text() for s in SETTINGS if Path(s).exists()] == before


def records(run: Run) -> list[tuple[int, int, int, int]]:
    """(kind, item, a, b) of vCPU 0's log, from guest/log.bin."""
    raw = (run.out / "guest/log.bin").read_bytes()
    (count,) = struct.unpack_from("<I", raw, 64)
    assert len(raw) == 4096 + 32 * count
    found = [struct.unpack_from("<QHHIQQ", raw, 4096 + 32 * n) for n in range(count)]
    return [(kind, item, a, b) for _tsc, kind, _vcpu, item, a, b in found]


BOOT, END, STAGE, DONE = 1, 3, 9, 13


@pytest.mark.parametrize("memory", [p.Memory(), p.Memory(p.Backing.MEMFD, share=True)])
def test_done(perform: Callable[..., Run], memory: p.Memory) -> None:
    """The guest reads from each page what the agent wrote there."""
    plan = make_plan(memory=memory)
    run = perform(plan)
    assert run.end() == {"format": FORMAT, "nonce": plan.nonce, "status": "done", "reason": "", "undone": True}
    read = {item: a for kind, item, a, _ in records(run) if kind == END}
    assert read == {i: page.gpa ^ plan.nonce ^ 0x5555555555555555 for i, page in enumerate(plan.pages)}
    assert run.json("precondition.json")["reached"] is True
    assert all(page["present"] for page in run.json("precondition.json")["pages"].values())
    facts = run.json("facts.json")["run"]
    threads = run.json("counters/before.json")["threads"]
    assert len(facts["vcpu_tids"]) == 1 and threads[str(facts["vcpu_tids"][0])]["vcpu"] == 0
    assert p.from_json(p.Plan, (run.out / "plan.json").read_text()) == plan
    assert not list(console_problems(plan, (run.out / "guest/console.txt").read_text(), ""))
    assert not list(mark_problems((run.out / "host/dmesg.txt").read_text(), plan.nonce))
    assert not list(qmp_problems((run.out / "qmp.jsonl").read_text()))
    left = run.json("after.json")["pages"]
    words = {page.gpa: page_content(page.gpa, plan.nonce)[8:16] for page in plan.pages}
    assert {gpa: left[str(gpa)]["word"] for gpa in words} == {g: int.from_bytes(w, "little") for g, w in words.items()}


def test_untouched_pages_read_zero(perform: Callable[..., Run]) -> None:
    run = perform(make_plan(start=p.PageStart.UNTOUCHED))
    assert run.end()["status"] == "done"
    assert [a for kind, _, a, _ in records(run) if kind == END] == [0, 0, 0]


@pytest.mark.skipif(not has_userfaultfd(), reason="this kernel has no userfaultfd")
@pytest.mark.parametrize("memory", [p.Memory(), p.Memory(p.Backing.MEMFD, share=True)])
def test_missing_pages_are_put_there(perform: Callable[..., Run], memory: p.Memory) -> None:
    """They hold what the agent's server copied, although nobody wrote them before."""
    plan = make_plan(start=p.PageStart.UNTOUCHED, memory=memory)
    run = perform(replace(plan, swap=p.Swap(p.SwapKind.USERFAULT)))
    assert run.end()["status"] == "done" and run.end()["undone"] is True
    assert not any(page["present"] for page in run.json("precondition.json")["pages"].values())
    read = {item: a for kind, item, a, _ in records(run) if kind == END}
    assert read == {i: page.gpa ^ plan.nonce ^ 0x5555555555555555 for i, page in enumerate(plan.pages)}


def test_host_actions_in_order(perform: Callable[..., Run]) -> None:
    host = tuple(p.Item(0, p.Op.HOST, value=n) for n in (0, 1))
    actions = (
        (p.HostAction(p.HostWord.STOP), p.HostAction(p.HostWord.SLEEP, 200), p.HostAction(p.HostWord.CONT)),
        (p.HostAction(p.HostWord.SLEEP, 1),),
    )
    run = perform(make_plan(extra=host, host_actions=actions))
    assert run.end()["status"] == "done"
    assert [a for kind, _, a, b in records(run) if kind == STAGE and b == 0] == [0, 1]
    steps = [json.loads(line) for line in (run.out / "progress.jsonl").read_text().splitlines()]
    done = [(s["step"], s["do"]) for s in steps if s["step"].startswith("host-action")]
    assert done == [
        (step, do) for do in ("stop", "sleep", "cont", "sleep") for step in ("host-action", "host-action-done")
    ]


def test_reset_goes_on_with_the_program(perform: Callable[..., Run]) -> None:
    host = (p.Item(0, p.Op.HOST, value=0), p.Item(0, p.Op.PAUSE, pause_us=1000))
    run = perform(
        make_plan(extra=host, host_actions=((p.HostAction(p.HostWord.RESET), p.HostAction(p.HostWord.SLEEP, 300)),))
    )
    assert run.end()["status"] == "done"
    assert [b % (1 << RESETS_BITS) for kind, _, _, b in records(run) if kind == BOOT] == [0, 1]
    assert [kind for kind, *_ in records(run)][-1] == DONE


def test_timed_actions(perform: Callable[..., Run]) -> None:
    """Each list begins at its time or later, whether or not an earlier one is over; the guest's pause ends by a reset
    alone, of which one comes behind its beginning however slow the machine is."""
    stands = (p.HostAction(p.HostWord.STOP), p.HostAction(p.HostWord.SLEEP, 200), p.HostAction(p.HostWord.CONT))
    resets = tuple(p.TimedAction(1000 * at, (p.HostAction(p.HostWord.RESET),)) for at in (1, 5, 20, 60, 120))
    run = perform(long_plan(timed=(p.TimedAction(100, stands), *resets)))
    go = run.until_step("go")
    assert run.end()["status"] == "done"
    steps = [json.loads(line) for line in (run.out / "progress.jsonl").read_text().splitlines()]
    begun = {
        (s["timed"], s["do"]): round(s["mono"] - go["mono"], 6) for s in reversed(steps) if s["step"] == "host-action"
    }
    stamped = 1e-6  # of each stamp
    assert begun[0, "stop"] >= 0.1 - stamped and begun[0, "sleep"] >= begun[0, "stop"]
    assert begun[0, "cont"] >= begun[0, "sleep"] + 0.2 - stamped
    assert begun[1, "reset"] >= 1.0 - stamped


def test_an_action_that_cannot_be_done(perform: Callable[..., Run]) -> None:
    host = (p.Item(0, p.Op.HOST, value=0),)
    run = perform(make_plan(extra=host, host_actions=((p.HostAction(p.HostWord.FREEZE),),)))
    end = run.end()
    assert (end["status"], end["undone"]) == ("error", True)
    assert "dm-delay" in end["reason"]
    assert run.process.returncode == 3
    assert [kind for kind, *_ in records(run)].count(STAGE) == 1
    assert run.json("counters/after.json")["vmstat"]


def long_plan(deadline_s: int = 300, **changes: Any) -> p.Plan:
    """A guest that ends by nothing that it does itself."""
    return make_plan(extra=(p.Item(0, p.Op.PAUSE, pause_us=4_000_000_000),), deadline_s=deadline_s, **changes)


def test_guest_that_does_not_end(perform: Callable[..., Run]) -> None:
    run = perform(long_plan(deadline_s=1))
    end = run.end()
    assert (end["status"], end["undone"]) == ("guest-timeout", True)
    assert run.json("counters/after.json")["vmstat"]
    assert BOOT in [kind for kind, *_ in records(run)]


def test_qemu_dies(perform: Callable[..., Run]) -> None:
    run = perform(long_plan())
    run.until_step("go")
    os.kill(run.qemu_pid(), signal.SIGKILL)
    end = run.end()
    assert (end["status"], end["undone"]) == ("qemu-died", True)
    assert "-9" in end["reason"]


def test_guest_panics(perform: Callable[..., Run]) -> None:
    """A touch beyond the guest's memory map is a page fault of its own."""
    run = perform(make_plan(extra=(p.Item(0, p.Op.TOUCH, gpa=0x7FFF_FFFF_F000),)))
    assert run.end()["status"] == "guest-panic"
    assert 7 in [kind for kind, *_ in records(run)]


def test_guest_that_refuses_its_program(perform: Callable[..., Run]) -> None:
    """More items than the guest can have: PANIC before READY, noticed before its time to get ready is over."""
    plan = make_plan(pages=0)
    items = tuple(p.Item(i, p.Op.WAIT) for i in range(1025))
    run = perform(replace(plan, items=items))
    assert run.end()["status"] == "guest-panic"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_and_undoes(perform: Callable[..., Run], number: signal.Signals) -> None:
    run = perform(long_plan())
    run.until_step("go")
    pid = run.qemu_pid()
    run.process.send_signal(number)
    end = run.end()
    assert (end["status"], end["undone"]) == ("error", True)
    assert number.name in end["reason"]
    assert not Path(f"/proc/{pid}").exists()


def test_closed_stdin_ends_and_undoes(perform: Callable[..., Run]) -> None:
    run = perform(long_plan())
    run.until_step("go")
    pid = run.qemu_pid()
    assert run.process.stdin is not None
    run.process.stdin.close()
    run.process.stdin = None
    end = run.end()
    assert (end["status"], end["undone"]) == ("error", True)
    assert "closed" in end["reason"]
    assert not Path(f"/proc/{pid}").exists()


def test_killed_agent_leaves_no_qemu_and_is_undone_by_another(perform: Callable[..., Run]) -> None:
    run = perform(long_plan())
    run.until_step("go")
    pid = run.qemu_pid()
    run.process.kill()
    run.process.wait(HANG_S)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "QEMU's end")
    assert not (run.out / "end.json").exists()
    argv = [sys.executable, "-m", "harness.agent", "undo", "--journal", str(run.out / "journal.jsonl")]
    assert subprocess.run(argv, check=False, timeout=HANG_S).returncode == 0


def host_program(folder: Path, script: str, deadline_s: int = 300) -> tuple[p.Plan, str, str]:
    """A plan for a program that is this shell script, and the agent's option for it."""
    program = folder / "apf_halted_ways_test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    guest = p.Guest(p.GuestKind.HOST_PROGRAM, workload="apf_halted_ways_test", cmdline="off reset")
    plan = replace(make_plan(deadline_s=deadline_s), guest=guest, pages=(), items=())
    return plan, "--program", str(program)


def test_a_host_program_says_what_it_says_and_ends_as_it_ends(perform: Callable[..., Run], tmp_path: Path) -> None:
    run = perform(*host_program(tmp_path, 'echo "$@"; echo oops >&2; exit 3'))
    assert run.end()["status"] == "done"
    assert (run.out / "program/output.txt").read_text() == "off reset\noops\n"
    assert run.json("program/end.json") == {"code": 3}


def test_a_host_program_that_hangs_is_killed_with_all_that_it_started(
    perform: Callable[..., Run], tmp_path: Path
) -> None:
    run = perform(*host_program(tmp_path, f"sleep 1000.{os.getpid()} & wait", deadline_s=1))
    assert run.end()["status"] == "guest-timeout"
    assert not (run.out / "program/end.json").exists()
    assert (
        subprocess.run(["pgrep", "-f", rf"^sleep 1000\.{os.getpid()}$"], check=False, stdout=subprocess.PIPE).stdout
        == b""
    )


def test_a_host_program_that_is_not_there(perform: Callable[..., Run], tmp_path: Path) -> None:
    plan, option, _ = host_program(tmp_path, "")
    end = perform(plan, option, str(tmp_path / "nowhere")).end()
    assert end["status"] == "error" and "nowhere" in end["reason"]


def test_no_disk_for_dm_delay_is_unsupported(perform: Callable[..., Run]) -> None:
    run = perform(replace(make_plan(), swap=p.Swap(p.SwapKind.DELAY)))
    end = run.end()
    assert end["status"] == "unsupported"
    assert "dm-delay" in end["reason"]
    assert run.process.returncode == 0


@pytest.mark.skipif(os.path.exists("/sys/block/nbd0"), reason="this machine has nbd")
def test_without_nbd_the_default_rule_is_performed_by_dm_delay(perform: Callable[..., Run]) -> None:
    run = perform(replace(make_plan(), swap=p.Swap(kind=p.SwapKind.GATED)))
    assert "dm-delay" in run.end()["reason"]  # and there is no disk for it
    assert json.loads((run.out / "plan.json").read_text())["swap"]["kind"] == "dm-delay"


@pytest.mark.skipif(os.path.exists("/sys/block/nbd0"), reason="this machine has nbd")
def test_without_nbd_other_rules_are_unsupported(perform: Callable[..., Run]) -> None:
    end = perform(replace(make_plan(), swap=p.Swap(kind=p.SwapKind.GATED, release="step"))).end()
    assert end["status"] == "unsupported" and "nbd" in end["reason"]


@pytest.mark.parametrize("when", ["kernel_params", "kernel_params_at_go"])
def test_missing_module_parameter_is_unsupported(perform: Callable[..., Run], when: str) -> None:
    run = perform(
        p.from_json(p.Plan, json.dumps({**json.loads(p.to_json(make_plan())), when: [["kvm.no_such_parameter", "1"]]}))
    )
    end = run.end()
    assert end["status"] == "unsupported"
    assert "kvm.no_such_parameter" in end["reason"]


def test_a_parameter_that_can_only_be_read_is_unsupported(perform: Callable[..., Run]) -> None:
    """kvm.tdp_mmu from 6.3 on."""
    files = sorted(Path("/sys/module").glob("*/parameters/*"))
    path = next((f for f in files if not f.stat().st_mode & 0o222), None)
    if path is None:
        pytest.skip("this kernel has no such parameter")
    end = perform(replace(make_plan(), kernel_params=((f"{path.parent.parent.name}.{path.name}", "1"),))).end()
    assert end["status"] == "unsupported" and "only when its module is loaded" in end["reason"]


def test_a_parameter_that_is_a_path_is_refused(perform: Callable[..., Run]) -> None:
    """Root would write whatever file a plan names."""
    name = "printk." + "../" * 5 + "proc/sys/vm/page-cluster"
    assert os.path.exists(f"/sys/module/printk/parameters/{name.partition('.')[2]}")
    before = Path("/proc/sys/vm/page-cluster").read_text()
    end = perform(replace(make_plan(), kernel_params=((name, "7"),))).end()
    assert end["status"] == "error" and "is no module parameter" in end["reason"]
    assert Path("/proc/sys/vm/page-cluster").read_text() == before


@pytest.mark.parametrize("text", ["{", '{"scenario": 1}', "[]"])
def test_bad_plan_is_bad_usage(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    argv = [sys.executable, "-m", "harness.agent", "perform", "--plan", str(tmp_path / "plan.json")]
    done = subprocess.run([*argv, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "apf agent:" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_stream_that_is_gone_keeps_no_evidence_back(tmp_path: Path, probe_elf: Path) -> None:
    """stdout closed by the reader while stdin stays open."""
    run = Run(tmp_path, make_plan(), probe_elf, "--detached")
    stdout: IO[str] | None = run.process.stdout
    assert stdout is not None
    stdout.close()
    run.process.stdout = None
    run.process.wait(HANG_S)
    assert run.json("end.json")["status"] == "done"
    run.process.communicate()
