# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent is killed (SIGKILL) at every journalled step in turn, on a virtual host with KVM, tracing and swap: the
next reservation puts everything back.  Each change before it is noted (the one before has been made), and when it is
noted (and not made).  So it is when the disk of the journal is full.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts.images import images
from harness.artifacts.kernels import built_kernel
from harness.artifacts.store import Store
from harness.contract.plan import Plan, SwapKind
from harness.contract.service import AgentOptions, PlanRequest, line_of
from harness.hosts.base import Conversation
from harness.hosts.virtual.virtual_host import CMDLINE, Keys, VirtualHost, start_virtual_host
from harness.hosts.virtual.vm import HostMachine
from harness.run.scenario_sources import default_scenarios, read_scenarios
from harness.scenario.build import build_plan
from tests.unit.agent import kill_there
from tests.unit.hosts.machine_look import LOOK, THERE, differs, prepare_looks

pytestmark = pytest.mark.host

RUN = "/run/apf-runs/killed"
OUT = f"{RUN}/000000000000f00d"
DRIVER = f"{LOOK}\nsys.path.insert(0, '{THERE}')\nimport kill_there\nkill_there.serve(look)\n"


@dataclass(frozen=True, slots=True)
class Killed:
    """What came of one performance; ``noted`` and ``undone``: how many changes were noted, and taken back."""

    noted: int
    undone: int
    killed: bool
    steps: list[str]
    look: dict[str, str]


@dataclass(frozen=True, slots=True)
class Killers:
    """kill_there.py on a host."""

    host: VirtualHost
    driver: Conversation

    def perform(self, request: str, number: int = 0, when: str = "never", *, reserve: bool = True) -> Killed:
        """Perform it, with the kill; ``reserve``: then what the next run does, which must put back everything."""
        answers: list[dict[str, Any]] = []
        order = {"run": RUN, "request": request, "number": number, "when": when, "reserve": reserve}

        def on_line(line: str) -> bool:
            answers.append(json.loads(line))
            return True

        self.driver.ask(json.dumps(order), deadline_s=400, on_line=on_line)
        (answer,) = answers
        if reserve:
            reserved = next(line for line in answer["next"] if "reserved" in line)
            assert reserved["replayed"] == [] and answer["next"][-1]["released"] == [], answer["next"]
        assert answer["killed"] or answer["served"], answer
        steps = [step.split()[0] for step in answer["steps"]]
        return Killed(steps.count("noted"), steps.count("undone"), answer["killed"], answer["steps"], answer["look"])


@pytest.fixture(scope="module")
def killers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killers]:
    store, folder = Store(), tmp_path_factory.mktemp("host")
    kernel = built_kernel.kernel(store, "debian-6.1")
    image = images.host_image(store)
    machine = HostMachine("tcg", kernel.bzimage, images.host_initramfs(store, kernel), image.root_ext4, CMDLINE)
    keys = Keys(image.ssh_client_key, image.ssh_host_public_key)
    with start_virtual_host(machine, keys, kernel.release, folder / "console.txt") as host:
        prepare_looks(host, images.agent_zipapp(store))
        host.put(images.probe_guest(store), f"{THERE}/probe.elf", deadline_s=60)
        host.put(Path(kill_there.__file__), f"{THERE}/kill_there.py", deadline_s=60)
        with contextlib.closing(host.converse(["python3", "-B", "-I", "-c", DRIVER])) as driver:
            yield Killers(host, driver)


def request_of(scenario: str, kind: SwapKind) -> str:
    (found,) = (s for s in read_scenarios((default_scenarios(),)) if s.id == scenario)
    plan: Plan = build_plan(found, 0xF00D)
    plan = dataclasses.replace(plan, swap=dataclasses.replace(plan.swap, kind=kind))
    return line_of(PlanRequest(plan, AgentOptions(OUT, f"{THERE}/probe.elf", "/dev/vdb")))


@pytest.mark.parametrize("when", ["before", "noted"])
def test_killed_at_every_step(when: str, killers: Killers) -> None:
    """Anonymous memory with swap on the gated device."""
    request = request_of("S23", SwapKind.GATED)
    whole = killers.perform(request)
    before = killers.perform(request).look
    assert whole.noted > 6 and whole.undone >= whole.noted, whole
    assert not differs(before, whole.look)
    for number in range(1, whole.noted + 1):
        done = killers.perform(request, number, when)
        assert done.killed and done.noted == number, (number, done.steps)
        left = differs(before, done.look)
        assert not left, f"killed {when} {number} of {whole.noted}: {done.steps}"
    killers.host.check()


def test_a_kill_that_nobody_takes_back_is_seen(killers: Killers) -> None:
    """The test above can fail."""
    request = request_of("S23", SwapKind.GATED)
    before = killers.perform(request)
    left = killers.perform(request, before.noted, "noted", reserve=False)
    assert len(differs(before.look, left.look)) > 3
    assert not differs(before.look, killers.perform(request).look)


def test_a_full_disk_under_the_journal(killers: Killers) -> None:
    """Of every size from nothing on until the plan can be performed: it ends early, and nothing is left."""
    request = request_of("S23", SwapKind.GATED)
    before = killers.perform(request).look
    ends = []
    for pages in (1, 2, 3, 4, 6, 8):
        full = (
            f"mkdir -p {RUN} && mount -t tmpfs -o size=1m tmpfs {RUN} && mkdir {RUN}/scope && "
            f"dd if=/dev/zero of={RUN}/fill bs=4096 count={256 - pages} 2> /dev/null"
        )
        assert killers.host.run(["sh", "-c", full], deadline_s=60).code == 0
        done = killers.perform(request, reserve=False)
        ends.append(done.noted)
        killers.host.run(["umount", RUN], deadline_s=60)
        killers.host.run(["rmdir", RUN], deadline_s=60)
        mine = {"mounts", "files in /run/apf-runs"}
        left = [told for told in differs(before, done.look) if told.partition(":")[0] not in mine]
        assert not left, f"with {pages} pages free"
    assert len(set(ends)) > 1, f"the disk was never full in the middle: {ends}"
    assert not differs(before, killers.perform(request).look)
