# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual host as a machine of the lab that is booted into other kernels by kexec: the verdicts are those of a direct
run, and it comes back to its own kernel, whatever happens.  Run by ``make test-host``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.artifacts import layout
from harness.artifacts.images import images
from harness.artifacts.kernels import built_kernel
from harness.artifacts.store import Store
from harness.errors import KernelFault
from harness.hosts import HostOrder
from harness.hosts.away_note import hold_note
from harness.hosts.deadline import Deadline
from harness.hosts.kexec_boot import booted_by_kexec
from harness.hosts.lab_file import LabHost, find_lab_host, lab_text
from harness.hosts.performer import Payload
from harness.hosts.ssh import connect
from harness.hosts.ssh_machine import SshMachine, connect_way
from harness.hosts.stream import Lines
from harness.progress import silent
from tests.unit.hosts.lab_machine import APF, NAME, Lab, apf, start_lab
from tests.unit.hosts.machine_look import AGENT, THERE, differs, look, prepare_looks

pytestmark = pytest.mark.host

OTHER = "noio-6.1"
SCENARIO = "S23"
BY_ITSELF_S = 400.0
"""Nobody holds it for 120 s, then it resets, and boots; on a busy machine everything takes its time."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with start_lab(tmp_path_factory.mktemp("lab")) as started:
        with connect(started.path, NAME) as machine:  # files for a shell, which a reset does not bring back
            assert machine.run(["rm", "-r", "/run/apf-agent"], deadline_s=30).code == 0
        yield started


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """``boot``: boot_id."""

    boot: str
    release: str
    look: dict[str, str]


def state(lab: Lab) -> State:
    """Of the machine under its own kernel, after what is needed for looking."""
    with connect(lab.path, NAME) as machine:
        prepare_looks(machine, images.agent_zipapp(Store()))
        first = f"python3 -I {AGENT} reserve --name first < /dev/null"  # makes the folder of runs
        assert machine.run(["sh", "-c", first], deadline_s=200).code == 0
        boot = machine.told(["cat", "/proc/sys/kernel/random/boot_id"])
        return State(boot, machine.kernel().release, look(machine))


def require_back(before: State, after: State) -> None:
    """It was away, and is as it was."""
    assert after.boot != before.boot
    assert after.release == before.release
    left = [told for told in differs(before.look, after.look) if not told.startswith("/proc/sys/vm/")]
    assert not left  # some sysctls of vm are computed from the memory that is free at boot


def under_other(lab: Lab) -> tuple[LabHost, ...]:
    """How it is reached under the other kernel."""
    image = images.host_image(Store())
    entry = find_lab_host(lab.path, NAME)[0]
    return (dataclasses.replace(entry, key=image.ssh_client_key, host_key=image.ssh_host_public_key),)


@contextlib.contextmanager
def running(lab: Lab, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`apf run` with the other kernel, from when its first guest has been let go."""
    words = ["run", SCENARIO, "--repeats", "3", "-k", OTHER, *lab.where, "--results", str(folder)]
    runner = subprocess.Popen(
        [*APF, *words], cwd=layout.REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert runner.stdout is not None
        told = []
        for line in runner.stdout:
            told.append(line)
            if line.rstrip().endswith(": go"):
                break
        else:
            raise AssertionError("the run ended early:\n" + "".join(told))
        yield runner
    finally:
        runner.kill()
        runner.communicate(timeout=60)


def verdicts(folder: Path) -> list[str]:
    return [row["verdict"] for row in json.loads((folder / "latest/results.json").read_text())["verdicts"]]


def test_verdicts_are_those_of_a_direct_run(lab: Lab, tmp_path: Path) -> None:
    """The other kernel answers otherwise than the machine's own: with its model, the machine's own fails."""
    before = state(lab)
    done = lab.apf(tmp_path, SCENARIO, "S28", "-k", OTHER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts(tmp_path) == ["PASS", "PASS"]
    assert f"{OTHER} by kexec" in done.stdout
    facts = json.loads(next((tmp_path / "latest").glob(f"{SCENARIO}*/capture/facts.json")).read_text())
    assert built_kernel.kernel(Store(), OTHER).release in json.dumps(facts)
    require_back(before, state(lab))


def test_only_where_the_file_allows_it(lab: Lab, tmp_path: Path) -> None:
    entry = dataclasses.replace(find_lab_host(lab.path, NAME)[0], kexec=False)
    (tmp_path / "lab.toml").write_text(lab_text(NAME, entry))
    where = ["--host", f"ssh:{NAME}", "--lab", str(tmp_path / "lab.toml")]
    done = apf("run", SCENARIO, "-k", OTHER, *where, "--results", str(tmp_path / "r"))
    assert done.returncode == 3
    assert f"{NAME} does not run {OTHER}: it runs 6.1." in done.stdout


def test_a_kernel_that_is_loaded_and_not_booted_is_unloaded(lab: Lab) -> None:
    """When the run says nothing, and when the agent was killed there: by the next reservation."""
    kernel = built_kernel.kernel(Store(), OTHER)
    with connect(lab.path, NAME) as machine:
        prepare_looks(machine, images.agent_zipapp(Store()))
        machine.put(kernel.bzimage, f"{THERE}/bzImage", deadline_s=120)
        machine.put(images.host_initramfs(Store(), kernel), f"{THERE}/initrd", deadline_s=120)
        for killed in (False, True):
            folder = "/run/apf-runs/loading"
            machine.run(["mkdir", "-p", f"{folder}/scope", f"{folder}/machine"], deadline_s=30)
            words = ["python3", "-I", AGENT, "kexec", "--kernel", f"{THERE}/bzImage", "--initrd", f"{THERE}/initrd"]
            with contextlib.closing(machine.open([*words, "--journal", f"{folder}/machine/journal.jsonl"])) as stream:
                assert Lines(stream).next(Deadline.after(120, "loading")) == "loaded", stream.errors()
                assert loaded(machine) == "1"
                if killed:
                    kill = "ps -o pid,args | awk '/agent.pyz [k]exec/ { print $1 }' | xargs kill -9"
                    assert machine.run(["sh", "-c", kill], deadline_s=30).code == 0
                else:
                    stream.end_input()
                    stream.code(Deadline.after(60, "unloading"))
            assert loaded(machine) == str(int(killed))
            next_run = f"python3 -I {AGENT} reserve --name next < /dev/null"
            assert machine.run(["sh", "-c", next_run], deadline_s=200).code == 0
            assert loaded(machine) == "0"


def notes(lab: Lab) -> list[Path]:
    """Those that this machine is under another kernel."""
    entry = find_lab_host(lab.path, NAME)[0]
    with hold_note(Store().root / "away", NAME, f"{entry.address} {entry.port} {entry.host_key}", 0, silent) as note:
        return [note.path] if note.read() is not None else []


def loaded(machine: SshMachine) -> str:
    return machine.told(["cat", "/sys/kernel/kexec_loaded"])


def test_a_panic_of_the_other_kernel_is_told_and_the_machine_is_back(lab: Lab, tmp_path: Path) -> None:
    before = state(lab)
    with running(lab, tmp_path) as runner:
        with connect_way(under_other(lab)) as machine, contextlib.suppress(Exception):
            machine.run(["sh", "-c", "echo c > /proc/sysrq-trigger"], deadline_s=5)
        said, _ = runner.communicate(timeout=600)
    assert runner.returncode in (1, 3), said
    assert set(verdicts(tmp_path)) - {"PASS"} != set()
    require_back(before, state(lab))


def test_a_kernel_that_never_comes_up_is_the_kernels_fault_and_the_machine_is_back(lab: Lab, tmp_path: Path) -> None:
    """Without an init it panics as soon as it has booted, before anybody can reach it."""
    before = state(lab)
    store = Store()
    kernel = built_kernel.kernel(store, OTHER)
    hopeless = dataclasses.replace(kernel, cmdline=f"{kernel.cmdline} rdinit=/nowhere")
    payload = Payload(images.agent_zipapp(store), images.probe_guest(store))
    order = HostOrder(store, hopeless, payload, lambda: tmp_path / "console.txt", silent, name=NAME, lab=lab.path)
    with pytest.raises(KernelFault, match="did not come up"), booted_by_kexec(find_lab_host(lab.path, NAME), order):
        pass
    assert not notes(lab)
    require_back(before, state(lab))


def test_a_machine_that_hangs_is_brought_back_by_its_power(lab: Lab, tmp_path: Path) -> None:
    """Its processors are halted (reboot(2), LINUX_REBOOT_CMD_HALT): nothing there answers any more, nor resets it."""
    before = state(lab)
    entry = dataclasses.replace(find_lab_host(lab.path, NAME)[0], boot_s=60)
    short = dataclasses.replace(lab, path=tmp_path / "lab.toml")
    short.path.write_text(lab_text(NAME, entry))
    with running(short, tmp_path / "r") as runner:
        with connect_way(under_other(lab)) as machine, contextlib.suppress(Exception):
            machine.run(["halt", "-f"], deadline_s=5)
        said, _ = runner.communicate(timeout=600)
    assert runner.returncode == 3, said
    assert "its power is switched off and on" in said
    require_back(before, state(lab))


def test_a_run_that_is_killed_leaves_a_machine_that_comes_back(lab: Lab, tmp_path: Path) -> None:
    """By itself, in time; a run that comes before brings it back; meanwhile it is not mistaken for another machine."""
    before = state(lab)
    with running(lab, tmp_path / "first"):
        pass  # killed
    (note,) = notes(lab)
    give_up, release = time.monotonic() + BY_ITSELF_S, ""
    while release != before.release:  # the other kernel answers there, too: this machine's own image has its keys
        assert time.monotonic() < give_up
        time.sleep(5)
        with contextlib.suppress(Exception), connect(lab.path, NAME) as machine:
            release = machine.kernel().release
    again = state(lab)
    require_back(before, again)
    with running(lab, tmp_path / "second"):  # sees that it is back
        pass
    done = lab.apf(tmp_path / "third", SCENARIO)  # on its own kernel, long before it would come back by itself
    assert done.returncode == 0, done.stdout + done.stderr
    assert not note.exists()
    require_back(again, state(lab))


def test_a_second_run_from_here_is_refused(lab: Lab, tmp_path: Path) -> None:
    with running(lab, tmp_path / "first"):
        done = lab.apf(tmp_path / "second", SCENARIO)
        assert done.returncode == 3
        assert f"another run has booted {OTHER} on {NAME}" in done.stdout
    assert lab.apf(tmp_path / "third", SCENARIO).returncode == 0
