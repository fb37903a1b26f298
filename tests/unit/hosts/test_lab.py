# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual host as a machine of the lab: smoke over ``ssh:``, and ``local`` inside it, with the same verdicts as
directly.  Run by ``make lab-smoke``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.artifacts import layout
from harness.artifacts.images import images
from harness.artifacts.store import Store
from harness.hosts.deadline import Deadline
from harness.hosts.lab_file import find_lab_host, lab_text
from harness.hosts.ssh import connect
from harness.hosts.ssh_machine import SshMachine
from harness.status import Status
from tests.unit.hosts.lab_machine import APF, Lab, apf, start_lab
from tests.unit.hosts.labgrid_lab import start_labgrid

pytestmark = pytest.mark.host

PACKAGES = (
    "attr", "attrs", "bcrypt", "cattrs", "cryptography", "_cffi_backend*", "google", "jinja2", "markupsafe",
    "perfetto", "qemu", "rich", "tree_sitter", "tree_sitter_c", "typing_extensions.py",
)  # fmt: skip
"""What `apf run` imports, of the virtual environment: the virtual host has a bare Python of the same series."""
INSIDE = "/tmp/apf"


@pytest.fixture(scope="module")
def lab(direct: dict[str, Status], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """After the direct run: two virtual hosts at once are one too many for a small machine."""
    assert direct
    with start_lab(tmp_path_factory.mktemp("lab")) as started:
        yield started


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[SshMachine]:
    """The same machine for looking at it, without a reservation."""
    with connect(lab.path, "virtual") as connected:
        yield connected


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Status]:
    """Smoke as `make smoke` runs it.  CI has done that already: RESULTS names where."""
    there = Path(os.environ.get("RESULTS", "")) / "latest/results.json"
    if "RESULTS" in os.environ and there.exists():
        return verdicts(there)
    folder = tmp_path_factory.mktemp("direct")
    done = apf("run", "tag:smoke", "--hosts", "1", "--results", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return verdicts(folder / "latest/results.json")


def verdicts(path: Path) -> dict[str, Status]:
    return {row["scenario"]: Status(row["verdict"]) for row in json.loads(path.read_text())["verdicts"]}


def leftovers(machine: SshMachine) -> str:
    """What a run could have left: files, cgroups, tracing, probes, devices, swap, processes."""
    script = r"""
        ls /run/apf-runs | grep -v -x lock; ls -R /run/apf; ls -d /run/apf-*.pyz
        ls -d /sys/fs/cgroup/apf* /sys/kernel/tracing/instances/* /sys/block/dm-* /sys/block/loop*/loop 2>/dev/null
        grep -v Filename /proc/swaps; cat /sys/kernel/tracing/kprobe_events
        pgrep -f 'agent.pyz|qemu-system'; cat /proc/sys/vm/page-cluster /proc/sys/vm/swappiness
    """
    return machine.run(["sh", "-c", script], deadline_s=60).stdout.decode()


@pytest.fixture(scope="module")
def before(machine: SshMachine) -> str:
    return leftovers(machine)


def test_smoke_over_ssh_is_as_directly(
    lab: Lab, machine: SshMachine, before: str, direct: dict[str, Status], tmp_path: Path
) -> None:
    done = lab.apf(tmp_path, "tag:smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts(tmp_path / "latest/results.json") == direct
    assert len(direct) >= 5 and set(direct.values()) == {Status.PASS}
    assert leftovers(machine) == before
    key = find_lab_host(lab.path, "virtual")[0].key.read_text().splitlines()[2].encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 100 and not [path for path in files if key in path.read_bytes()]


def test_smoke_on_the_local_host_inside_is_as_directly(
    machine: SshMachine, before: str, direct: dict[str, Status], tmp_path: Path
) -> None:
    machine.run(["mkdir", "-p", INSIDE], deadline_s=30)
    machine.put(bundle(tmp_path), f"{INSIDE}/bundle.tar.gz", deadline_s=300)
    done = machine.run(["tar", "-C", INSIDE, "-xzf", f"{INSIDE}/bundle.tar.gz"], deadline_s=300)
    assert done.code == 0, done.stderr
    where = f"cd {INSIDE} && XDG_CACHE_HOME={INSIDE}/cache PYTHONPATH={INSIDE}:{INSIDE}/packages"
    words = ["python3", "-m", "harness.cli", "run", "tag:smoke", "--host", "local", "--disk", "/dev/vdb"]
    done = machine.run(
        ["sh", "-c", f"{where} {shlex.join([*words, '--results', INSIDE + '/results'])}"], deadline_s=900
    )
    assert done.code == 0, done.stdout.decode() + done.stderr.decode()
    text = machine.run(["cat", f"{INSIDE}/results/latest/results.json"], deadline_s=60).stdout
    (tmp_path / "results.json").write_bytes(text)
    assert verdicts(tmp_path / "results.json") == direct
    assert leftovers(machine) == before


def bundle(folder: Path) -> Path:
    """The harness, what it imports, and the store's entries for a machine without a compiler."""
    store, path = Store(), folder / "bundle.tar.gz"
    packages = Path(pytest.__file__).parents[1]
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name in ("harness", "kernels/catalog.toml", "kernels/config", "kernels/patches", "guest-images"):
            archive.add(layout.REPOSITORY / name, name)
        for name in ("tests/scenarios", "kernels/mutate.toml", ".ci/needs"):
            archive.add(layout.REPOSITORY / name, name)
        for pattern in PACKAGES:
            for found in packages.glob(pattern):
                archive.add(found, f"packages/{found.name}")
        for entry in (images.agent_zipapp(store).parent, images.probe_guest(store).parent):
            archive.add(entry, f"cache/apf/store/{entry.name}")
    return path


def test_the_kernel_that_is_asked_for_runs_there(lab: Lab, tmp_path: Path) -> None:
    done = lab.apf(tmp_path, "S23", "--kernel", "debian-6.1")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads((tmp_path / "latest/results.json").read_text())["verdicts"]
    assert row["kernel"] == "debian-6.1"


def test_a_second_run_is_refused_and_the_first_goes_on(lab: Lab, tmp_path: Path) -> None:
    first = subprocess.Popen(
        [*APF, "run", "S23", "--repeats", "3", "--host", "ssh:virtual", "--lab", str(lab.path),
         "--results", str(tmp_path / "first")],
        cwd=layout.REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert first.stdout is not None
    while "S23" not in (line := first.stdout.readline()):
        assert line, "the first run ended early"
    second = lab.apf(tmp_path / "second", "S20")
    assert second.returncode == 3
    assert "virtual is in use by run" in second.stdout
    rest, _ = first.communicate(timeout=300)
    assert first.returncode == 0, rest


def test_a_machine_that_is_not_as_before_makes_the_run_red(lab: Lab, machine: SshMachine, tmp_path: Path) -> None:
    """Somebody, or an agent that forgot to note it, changes a setting while the run has the machine."""
    runner = subprocess.Popen(
        [*APF, "run", "S23", "--repeats", "3", "--host", "ssh:virtual", "--lab", str(lab.path),
         "--results", str(tmp_path)],
        cwd=layout.REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    knob = "/proc/sys/vm/laptop_mode"
    give_up = time.monotonic() + 200
    while "qemu" not in machine.run(["sh", "-c", "ps -o args"], deadline_s=30).stdout.decode():
        assert time.monotonic() < give_up
    machine.run(["sh", "-c", f"echo 5 > {knob}"], deadline_s=30)
    said, _ = runner.communicate(timeout=400)
    machine.run(["sh", "-c", f"echo 0 > {knob}"], deadline_s=30)
    assert runner.returncode == 3, said
    assert f"virtual is not as before: {knob} was '0', is '5'" in said
    assert verdicts(tmp_path / "latest/results.json") == {"S23": Status.PASS}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_runner_that_is_ended_leaves_nothing_there(
    how: signal.Signals, lab: Lab, machine: SshMachine, before: str, tmp_path: Path
) -> None:
    runner = subprocess.Popen(
        [*APF, "run", "S23", "--repeats", "9", "--host", "ssh:virtual", "--lab", str(lab.path),
         "--results", str(tmp_path)],
        cwd=layout.REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert runner.stdout is not None
    while "S23" not in (line := runner.stdout.readline()):
        assert line, "the run ended early"
    give_up = time.monotonic() + 200
    while "qemu" not in machine.run(["sh", "-c", "ps -o args"], deadline_s=30).stdout.decode():
        assert time.monotonic() < give_up
    runner.send_signal(how)
    runner.communicate(timeout=120)
    assert runner.returncode == (130 if how is signal.SIGTERM else -signal.SIGKILL)
    give_up = time.monotonic() + 120
    while leftovers(machine) != before:
        assert time.monotonic() < give_up, f"{leftovers(machine)}\ninstead of\n{before}"
        time.sleep(0.5)


HOG = """
import ctypes, mmap, os, sys, time
ctypes.CDLL(None).mlockall(1)  # MCL_CURRENT: only the area below is to be swapped, not the program that says so
group = "/sys/fs/cgroup/others"
os.makedirs(group, exist_ok=True)
open(f"{group}/cgroup.procs", "w").write(str(os.getpid()))
area = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
while True:
    for page in range(0, 16 << 20, 4096):
        area[page] = 1
    try:
        open(f"{group}/memory.reclaim", "w").write(str(8 << 20))
    except OSError:
        pass
    print("swapped", flush=True)
    if sys.argv[1] == "once":
        time.sleep(1000)
    time.sleep(0.2)
"""


@contextlib.contextmanager
def others_swap(machine: SshMachine, folder: Path, how: str) -> Iterator[None]:
    """A process of somebody else in a cgroup of its own, with pages in a swap area that is not ours."""
    (folder / "hog.py").write_text(HOG)
    machine.put(folder / "hog.py", "/tmp/hog.py", deadline_s=30)
    on = "dd if=/dev/zero of=/tmp/swap bs=1M count=64; losetup /dev/loop7 /tmp/swap; mkswap /dev/loop7"
    on += "; swapon /dev/loop7"
    assert machine.run(["sh", "-c", on], deadline_s=60).code == 0
    with contextlib.closing(machine.start(["python3", "/tmp/hog.py", how])) as hog:
        assert b"swapped" in hog.read(Deadline.after(60, "the other process"))
        try:
            yield
        finally:
            hog.kill()
            off = "sleep 1; swapoff /dev/loop7; losetup -d /dev/loop7; rm /tmp/swap; rmdir /sys/fs/cgroup/others"
            assert machine.run(["sh", "-c", off], deadline_s=60).code == 0


def swapped(machine: SshMachine) -> bytes:
    return machine.run(["cat", "/sys/fs/cgroup/others/memory.swap.current"], deadline_s=30).stdout


def test_swap_of_others_is_no_reason_to_refuse_and_is_left_alone(
    lab: Lab, machine: SshMachine, before: str, tmp_path: Path
) -> None:
    with others_swap(machine, tmp_path, "once"):
        pages = swapped(machine)
        assert int(pages) >= 4 << 20
        done = lab.apf(tmp_path, "S23", "S29")
        assert done.returncode == 0, done.stdout + done.stderr
        assert swapped(machine) == pages
    assert leftovers(machine) == before


def test_swapping_of_others_meanwhile_is_told_apart(lab: Lab, machine: SshMachine, tmp_path: Path) -> None:
    with others_swap(machine, tmp_path, "always"):
        done = lab.apf(tmp_path, "S23")
    assert done.returncode == 1, done.stdout + done.stderr
    (row,) = json.loads((tmp_path / "latest/results.json").read_text())["verdicts"]
    assert row["verdict"] == "INCONCLUSIVE"
    # With the highest priority our device takes what others swap out, too: that, or that they swapped, is seen.
    told = ("others on this host swapped meanwhile", "pages of others at least lie on /dev/nbd")
    assert any(text in row["reason"] for text in told), row["reason"]


def test_doctor_over_ssh(lab: Lab, machine: SshMachine, before: str) -> None:
    """A guest runs there; a machine whose nbd is gone is told which scenarios that costs, and how to have it back."""
    words = [*APF, "doctor", "--host", "ssh:virtual", "--lab", str(lab.path), "--json"]
    done = subprocess.run(words, cwd=layout.REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["ok"], told["checks"]
    checks = {check["what"]: check for check in told["checks"]}
    assert checks["a guest runs to its end"]["ok"] and checks["given back"]["ok"]
    assert checks["other kernels (kexec)"]["ok"] and checks["other kernels (kexec)"]["found"] == "10.0.2.15/24"
    lacking = {s["scenario"]: s["lacks"] for s in told["scenarios"] if s["lacks"]}
    assert "S23" not in lacking and len(lacking) < 5
    machine.run(["rmmod", "nbd"], deadline_s=30)
    done = subprocess.run(
        [*words, "--no-trial"], cwd=layout.REPOSITORY, capture_output=True, text=True, timeout=300, check=False
    )
    machine.run(["insmod", "/run/apf/modules/nbd.ko"], deadline_s=30)
    told = json.loads(done.stdout)
    without = {s["scenario"]: s["lacks"] for s in told["scenarios"] if s["lacks"]}
    assert any("modprobe nbd" in lack["remedy"] for lack in without["S28"])
    assert {s["scenario"]: s["instead"] for s in told["scenarios"]}["S23"].startswith("dm-delay")
    assert leftovers(machine) == before


def test_over_labgrid(lab: Lab, machine: SshMachine, before: str, tmp_path: Path) -> None:
    """The same machine as a place of labgrid's own coordinator: acquired for the run, then free."""
    entry = find_lab_host(lab.path, "virtual")[0]
    service = f"  NetworkService:\n    address: {entry.address}\n    username: root\n    port: {entry.port}\n"
    (tmp_path / "labgrid").mkdir()
    with start_labgrid(tmp_path / "labgrid", {"board": service}) as labgrid:
        place = dataclasses.replace(entry, name="board", address="", port=22, coordinator=labgrid.address)
        (tmp_path / "lab.toml").write_text(lab_text("board", place))
        where = ["--host", "labgrid:board", "--lab", str(tmp_path / "lab.toml")]
        done = apf("run", "S23", "S29", *where, "--results", str(tmp_path / "results"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert verdicts(tmp_path / "results/latest/results.json") == {"S23": Status.PASS, "S29": Status.PASS}
        assert labgrid.holder("board") == ""
    assert leftovers(machine) == before
