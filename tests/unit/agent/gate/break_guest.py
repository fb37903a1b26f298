# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs on a host: an agent performs a plan, and while a worker of KVM sleeps on a page somebody is killed or stopped.

    PYTHONPATH=agent.pyz python3 break_guest.py server-killed|agent-killed|both-stopped|nothing FOLDER

FOLDER holds plan.json, agent.pyz and probe.elf.  Undoes, and prints one JSON object.  Standard library and agent only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

from harness.agent.host.kernel_files import read_text
from harness.agent.host.undo import pending, undo

SETTLED = "wait-settled"


def state(pid: int) -> str:
    try:
        return read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def asleep() -> int:
    """Kworkers in TASK_UNINTERRUPTIBLE: those that sleep on a page of the guest."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    found = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found += read_text(f"/proc/{pid}/comm").startswith("kworker") and state(pid) == "D"
    return found


def agent_command(folder: str) -> list[str]:
    """The agent, as a runner starts it."""
    return [
        "python3", f"{folder}/agent.pyz", "perform", "--plan", f"{folder}/plan.json", "--out", f"{folder}/out",
        "--probe", f"{folder}/probe.elf",
    ]  # fmt: skip


def main(harm: str, folder: str) -> None:
    """Perform up to a worker that sleeps; break, undo, look."""
    agent = subprocess.Popen(agent_command(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    for line in agent.stdout:
        told = json.loads(line) if line.startswith("{") else {}
        if told.get("step") == "host-action-done" and told.get("do") == SETTLED:
            break
    journal = f"{folder}/out/journal.jsonl"
    changes = {str(c["kind"]): c for c in pending(journal)}
    kind = "userfaultfd" if "userfaultfd" in changes else "nbd"
    server = int(str(changes[kind]["pid"]))
    qemu = int(json.loads(read_text(f"{folder}/out/facts.json"))["run"]["qemu_pid"])
    slept = asleep()
    match harm:
        case "server-killed":
            os.kill(server, signal.SIGKILL)
        case "agent-killed":
            agent.kill()
        case "both-stopped":
            os.kill(server, signal.SIGSTOP)
            agent.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    problems = undo(journal)
    seconds = time.monotonic() - began
    with contextlib.suppress(ProcessLookupError):
        agent.kill()
    agent.wait()
    while (state(qemu) not in ("", "Z") or asleep()) and time.monotonic() < began + 120:
        time.sleep(0.01)
    print(json.dumps({
        "seconds": round(seconds, 3), "slept": slept, "problems": problems, "left": pending(journal), "kind": kind,
        "server": state(server), "qemu": state(qemu), "gone": round(time.monotonic() - began, 3), "asleep": asleep(),
        "swaps": read_text("/proc/swaps").splitlines()[1:],
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
