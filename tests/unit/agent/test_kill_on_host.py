# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent is killed (SIGKILL) at every journalled step in turn, on a virtual host with KVM, tracing and swap: the
next reservation puts everything back.  Each change before it is noted (the one before has been made), when it is noted
(and not made), and while it is taken back, between that and its note.  So it is when the disk of the journal is full.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import json
import re
import warnings
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
from harness.errors import HostLost
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
    """What came of one performance; ``noted`` and ``undone``: how many changes."""

    noted: int
    undone: int
    killed: bool
    steps: list[str]
    look: dict[str, str]


class Killers:
    """kill_there.py on a host.

    A host whose emulated processors loop at a breakpoint of text patching that is gone (docs/adr/0005) is replaced, at
    most twice: what was asked of it is asked of the next one.

    :ivar before: everything of the host when the request that settle() was given was performed and taken back.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._started = 0
        self._request = ""
        self.before: dict[str, str] = {}
        self._start()

    def _start(self) -> None:
        self._started += 1
        store = Store()
        kernel = built_kernel.kernel(store, "debian-6.1")
        image = images.host_image(store)
        machine = HostMachine("tcg", kernel.bzimage, images.host_initramfs(store, kernel), image.root_ext4, CMDLINE)
        keys = Keys(image.ssh_client_key, image.ssh_host_public_key)
        console = self._folder / f"console-{self._started}.txt"
        self.host: VirtualHost = self._stack.enter_context(
            start_virtual_host(machine, keys, kernel.release, console)
        )  # fmt: skip
        prepare_looks(self.host, images.agent_zipapp(store))
        self.host.put(images.probe_guest(store), f"{THERE}/probe.elf", deadline_s=60)
        self.host.put(Path(kill_there.__file__), f"{THERE}/kill_there.py", deadline_s=60)
        listed = self.host.run(["grep", "-i", " t [^[]*$", "/proc/kallsyms"], deadline_s=120).stdout.decode()
        self._symbols = sorted((int(words[0], 16), words[2]) for words in map(str.split, listed.splitlines()))
        driver = self.host.converse(["python3", "-B", "-I", "-c", DRIVER])
        self._driver = self._stack.enter_context(contextlib.closing(driver))

    def stop(self) -> None:
        self._stack.close()

    def settle(self, request: str) -> Killed:
        """Perform it without harm, twice: the second time nothing is new any more; the first one is given."""
        self._request = request
        first = self.perform(request)
        self.before = self.perform(request).look
        assert not differs(self.before, first.look)
        return first

    def left(self, done: Killed) -> list[str]:
        """What is not as it was."""
        return differs(self.before, done.look)

    def perform(self, request: str, number: int = 0, when: str = "never", *, reserve: bool = True) -> Killed:
        """Perform it, with the kill; ``reserve``: then what the next run does, which must put back everything."""
        order = json.dumps({"run": RUN, "request": request, "number": number, "when": when, "reserve": reserve})
        try:
            answer = self._ask(order)
        except HostLost as lost:
            where = self.at()
            assert self._started < 3 and any("int3" in name for name in where), f"{lost}: {where}"
            warnings.warn(f"the host was replaced: {lost}: its processors are at {where}", stacklevel=1)
            self.stop()
            self._start()
            self.settle(self._request)
            answer = self._ask(order)
        if reserve:
            reserved = next(line for line in answer["next"] if "reserved" in line)
            assert reserved["replayed"] == [] and answer["next"][-1]["released"] == [], answer["next"]
        assert answer["killed"] or answer["served"], answer
        steps = [step.split()[0] for step in answer["steps"]]
        return Killed(steps.count("noted"), steps.count("undone"), answer["killed"], answer["steps"], answer["look"])

    def _ask(self, order: str) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []

        def on_line(line: str) -> bool:
            answers.append(json.loads(line))
            return True

        self._driver.ask(order, deadline_s=400, on_line=on_line)
        (answer,) = answers
        return answer

    def at(self) -> list[str]:
        """The functions in which its processors are, a few times; most of a loop of interrupts is seen so."""
        found = set()
        for _ in range(5):
            for place in re.findall(r"^RIP=([0-9a-f]{16})", self.host.diagnose(), re.MULTILINE):
                below = bisect.bisect(self._symbols, (int(place, 16), "~")) - 1
                found.add(self._symbols[below][1] if below >= 0 else place)
        return sorted(found)


@pytest.fixture(scope="module")
def killers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killers]:
    made = Killers(tmp_path_factory.mktemp("host"))
    try:
        yield made
    finally:
        made.stop()


def request_of(scenario: str, kind: SwapKind) -> str:
    (found,) = (s for s in read_scenarios((default_scenarios(),)) if s.id == scenario)
    plan: Plan = build_plan(found, 0xF00D)
    plan = dataclasses.replace(plan, swap=dataclasses.replace(plan.swap, kind=kind))
    return line_of(PlanRequest(plan, AgentOptions(OUT, f"{THERE}/probe.elf", "/dev/vdb")))


# Anonymous memory with swap on the gated device; a RAM file on ext4 over dm-delay; missing pages by userfaultfd.
@pytest.mark.parametrize(
    ("scenario", "kind"), [("S23", SwapKind.GATED), ("S36", SwapKind.DELAY), ("S20", SwapKind.USERFAULT)]
)
@pytest.mark.parametrize("when", ["before", "noted", "undone"])
def test_killed_at_every_step(when: str, scenario: str, kind: SwapKind, killers: Killers) -> None:
    """What an agent has for all its plans is taken back after the plan was served: then it was served and killed."""
    request = request_of(scenario, kind)
    whole = killers.settle(request)
    assert whole.noted > 6 and whole.undone >= whole.noted, whole
    for number in range(1, (whole.undone if when == "undone" else whole.noted) + 1):
        done = killers.perform(request, number, when)
        assert done.killed and (done.undone if when == "undone" else done.noted) == number, (number, done.steps)
        left = killers.left(done)
        assert not left, f"killed {when} {number} of {whole.noted}, {whole.undone}: {done.steps}"
    killers.host.check()


def test_a_kill_that_nobody_takes_back_is_seen(killers: Killers) -> None:
    """The test above can fail."""
    request = request_of("S23", SwapKind.GATED)
    whole = killers.settle(request)
    left = killers.perform(request, whole.noted, "noted", reserve=False)
    assert len(killers.left(left)) > 3
    assert not killers.left(killers.perform(request))


def test_a_full_disk_under_the_journal(killers: Killers) -> None:
    """Of every size from nothing on until the plan can be performed: it ends early, and nothing is left."""
    request = request_of("S23", SwapKind.GATED)
    killers.settle(request)
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
        left = [told for told in killers.left(done) if told.partition(":")[0] not in mine]
        assert not left, f"with {pages} pages free"
    assert len(set(ends)) > 1, f"the disk was never full in the middle: {ends}"
    assert not killers.left(killers.perform(request))
