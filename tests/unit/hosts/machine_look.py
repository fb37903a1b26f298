# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything of a machine that a run may have left, as the machine tells it: for tests that do harm to a run there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from harness.hosts.stream import StreamHost

THERE = "/tmp/look"
AGENT = f"{THERE}/agent.pyz"
LOOK = f"""
import fcntl, json, os, sys
sys.path.insert(0, "{AGENT}")
from harness.agent.host.machine_state import machine_state

def look():
    found = machine_state()
    for folder in ("/dev/shm", "/tmp", "/var/tmp", "/run", "/run/apf", "/run/apf-runs"):
        names = os.listdir(folder) if os.path.isdir(folder) else []
        found["files in " + folder] = " ".join(sorted(name for name in names if name != "utmp"))
    mine, names = os.getpid(), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open("/proc/" + pid + "/cmdline").read().split(chr(0))
        except OSError:
            continue
        if words[0] and int(pid) not in (mine, os.getppid()) and "dropbear" not in words[0]:
            names.append(" ".join(words[:4]).strip())
    found["processes"] = "; ".join(sorted(names))
    found["locked"] = "no"
    if os.path.exists("/run/apf-runs/lock"):
        with open("/run/apf-runs/lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found["locked"] = "yes"
    return found
"""
"""A function for Python there."""


def prepare_looks(host: StreamHost, agent: Path) -> None:
    """Put there what look() needs."""
    host.run(["mkdir", "-p", THERE], deadline_s=30)
    host.put(agent, AGENT, deadline_s=60)


def look(host: StreamHost) -> dict[str, str]:
    """What there is now, by name: see machine_state() of the agent; and files, processes, the lock of runs."""
    done = host.run(["python3", "-I", "-c", f"{LOOK}print(json.dumps(look()))"], deadline_s=180)
    assert done.code == 0, done.stderr.decode()
    return dict(json.loads(done.stdout))


def differs(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What is not as it was, in words."""
    return [
        f"{key}: was {before.get(key)!r}, is {after.get(key)!r}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]
