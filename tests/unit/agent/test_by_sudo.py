# SPDX-License-Identifier: GPL-2.0-or-later
"""An ordinary user and the agent: with the real sudo and the sudoers file that is shipped, in a mount namespace in
which both are in their places; this machine's own files stay as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.agent.by_sudo import allowed, caller, check_place
from harness.artifacts.images import images
from harness.artifacts.store import Store
from harness.contract.plan import Guest, GuestKind, Memory, Plan, Swap, SwapKind, from_json, to_json
from harness.contract.service import AgentOptions
from harness.errors import UsageError
from harness.hosts.local import LocalStream
from harness.hosts.performer import Payload, Performer
from harness.hosts.reserved_host import BareHost, ReservedOrder, reserved_host
from harness.hosts.stream import Stream
from harness.progress import silent
from tests.unit.agent.conftest import REPOSITORY, make_plan, root_only
from tests.unit.waiting import HANG_S

SUDOERS = REPOSITORY / ".ci/lab/sudoers"
AGENT = ("/usr/bin/python3", "-I", "/usr/local/lib/apf/agent.pyz")
NOBODY = 65534
needs_sudo = pytest.mark.skipif(shutil.which("sudo") is None, reason="no sudo here")


@dataclass(frozen=True, slots=True)
class Machine:
    """Root's files of the namespace."""

    sudoers: Path
    library: Path

    def words(self, argv: list[str]) -> list[str]:
        """A command as the user nobody, who is called apf in the sudoers file."""
        places = f"mount --bind {self.sudoers} /etc/sudoers && mount --bind {self.library} /usr/local/lib"
        user = "exec setpriv --reuid=65534 --regid=65534 --clear-groups env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        return ["unshare", "-m", "sh", "-c", f'{places} && {user} "$@"', "sh", *argv]

    def run(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(list(argv)), input=stdin, capture_output=True, text=True, timeout=HANG_S, check=False
        )


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("root")
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o755)
    (folder / "lib/apf").mkdir(parents=True)
    shutil.copy(images.agent_zipapp(Store()), folder / "lib/apf/agent.pyz")
    (folder / "lib/apf/agent.pyz").chmod(0o644)
    (folder / "sudoers").write_text(SUDOERS.read_text().replace("apf ALL", "nobody ALL"))
    (folder / "sudoers").chmod(0o440)
    yield Machine(folder / "sudoers", folder / "lib")


@needs_sudo
def test_the_shipped_file_is_a_sudoers_file() -> None:
    visudo = shutil.which("visudo", path="/usr/sbin:/sbin") or "visudo"
    done = subprocess.run([visudo, "-c", "-f", SUDOERS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@root_only
@needs_sudo
@pytest.mark.parametrize(
    "command",
    [
        ["id"],
        ["/usr/bin/python3", "-c", "import os; print(os.getuid())"],
        ["/usr/bin/python3", AGENT[2], "facts"],  # without -I: PYTHONPATH would be ours to choose
        [*AGENT, "perform", "--plan", "/tmp/x", "--out", "/etc"],
        [*AGENT, "undo", "--journal", "/tmp/x"],
        [*AGENT, "reserve", "--name", "x", ";", "id"],
        ["/usr/bin/python3", "-I", "/usr/local/lib/apf/../apf/agent.pyz", "facts"],
        ["/usr/bin/python3", "-I", "/tmp/agent.pyz", "serve"],
    ],
    ids=lambda command: " ".join(command)[-40:],
)
def test_nothing_else_is_run_as_root(command: list[str], machine: Machine) -> None:
    done = machine.run("sudo", "-n", *command)
    assert done.returncode == 1, done.stdout
    assert "a password is required" in done.stderr or "not allowed" in done.stderr


@root_only
@needs_sudo
def test_kexec_is_not_on_the_list(machine: Machine) -> None:
    """Neither sudo's nor, if root had allowed more there, the agent's own."""
    done = machine.run("sudo", "-n", *AGENT, "kexec", "--check", "")
    assert done.returncode == 1 and not done.stdout
    agent = machine.library / "apf/agent.pyz"
    done = subprocess.run(
        [*AGENT[:2], agent, "kexec", "--check", ""], env={"SUDO_UID": str(NOBODY)},
        capture_output=True, text=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "not for those who come by sudo" in done.stderr


@root_only
@needs_sudo
def test_the_agent_is(machine: Machine) -> None:
    told = json.loads(machine.run("sudo", "-n", *AGENT, "facts").stdout)
    assert told["host"]["release"] == os.uname().release
    for words in (["reserve", "--name", "x", "--state", "/tmp/x"], ["facts", "--qemu", "/usr/bin/id"], ["serve"]):
        done = machine.run("sudo", "-n", *AGENT, *words)
        assert done.returncode == 2, words
        assert "not for those who come by sudo" in done.stderr or "not the folder of a run" in done.stderr


class ByNobody(BareHost):
    """This machine for an ordinary user."""

    name = "here"
    sudo = ("sudo", "-n")
    agent = AGENT

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def start(self, argv: list[str]) -> Stream:
        return LocalStream(self._machine.words(argv))


@root_only
@needs_sudo
@pytest.mark.usefixtures("host_settings")
def test_a_plan_is_performed_and_its_capture_can_be_read(machine: Machine, probe_elf: Path, tmp_path: Path) -> None:
    """Everything but the agent as nobody: files are put, a plan is performed, its capture comes back, nothing stays."""
    order = ReservedOrder("local", Path("/nonexistent"), silent, disk="/dev/null", wait_s=300, compare=False)
    with reserved_host(ByNobody(machine), order) as host:
        assert host.facts.folder.endswith("/in") and host.facts.captures == host.facts.folder.removesuffix("/in")
        assert host.run(["id", "-u"], deadline_s=HANG_S).stdout == b"65534\n"
        done = host.run(["touch", f"{host.facts.captures}/x"], deadline_s=HANG_S)
        assert b"Permission denied" in done.stderr

        performer = Performer(_without_disk(host), Payload(Path("/nonexistent"), probe_elf))
        try:
            performer.perform(make_plan(), tmp_path / "capture", lambda _step, _told: None)
        finally:
            performer.close()
        captures = host.facts.captures
        end = json.loads((tmp_path / "capture/end.json").read_text())
        assert end["status"] in ("done", "unsupported"), end
        assert os.stat(f"{captures}/{make_plan().nonce:016x}/end.json").st_uid == 0
    assert not os.path.exists(captures)


def _without_disk(host):  # type: ignore[no-untyped-def]
    host._facts = replace(host._facts, disk="")
    return host


PLAN = Plan("S1", "t", 1, Guest(), Memory(), Swap(kind=SwapKind.NONE), (), ())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run/in").mkdir(parents=True)
    (tmp_path / "run/in/probe.elf").write_bytes(b"probe")
    return tmp_path / "run"


def options(folder: Path, **more: object) -> AgentOptions:
    base = AgentOptions(f"{folder}/{'0' * 15}1", f"{folder}/in/probe.elf")
    return replace(base, **more)  # type: ignore[arg-type]


def test_a_copy_is_used(folder: Path) -> None:
    found = allowed(PLAN, options(folder), str(folder), os.getuid())
    assert found.probe == f"{folder}/taken/probe.elf"
    (folder / "in/probe.elf").write_bytes(b"another")
    assert Path(found.probe).read_bytes() == b"probe"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"out": "/etc/0000000000000001"}, "no place for a capture"),
        ({"out": "RUN/../../0000000000000001"}, "no place for a capture"),
        ({"out": "RUN/in"}, "no place for a capture"),
        ({"probe": "/etc/shadow"}, "not in the folder"),
        ({"probe": "RUN/in/../../x"}, "not in the folder"),
        ({"guest_kernel": "RUN/in/link"}, "Too many levels of symbolic links"),
        ({"guest_initrd": "RUN/in/pipe"}, "not a file of the user"),
        ({"guest_kernel": "RUN/in/absent"}, "No such file"),
        ({"disk": "/dev/sda"}, "not in"),
        ({"disk": "/dev/loop0/../sda"}, "not in"),
        ({"program": "RUN/in/probe.elf"}, "host programs"),
        ({"qemu": "/bin/sh"}, "option qemu"),
        ({"journal": "/etc/x"}, "option journal"),
        ({"scratch": "/etc"}, "option scratch"),
        ({"accel": "tcg"}, "option accel"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_on_the_list_is_refused(more: dict[str, str], told: str, folder: Path, tmp_path: Path) -> None:
    (folder / "in/link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "in/pipe")
    asked = options(folder, **{key: value.replace("RUN", str(folder)) for key, value in more.items()})
    with pytest.raises(UsageError, match=told):
        allowed(PLAN, asked, str(folder), os.getuid(), disks=str(tmp_path / "disks"))
    assert not [path for path in (folder / "taken").glob("*") if path.name != "probe.elf"]


def test_files_of_others_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="not a file of the user"):
        allowed(PLAN, options(folder), str(folder), os.getuid() + 1)


def test_a_disk_that_root_has_listed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "disks").write_text("/dev/sdb\n/dev/sdc\n")
    found = allowed(PLAN, options(folder, disk="/dev/sdc"), str(folder), os.getuid(), disks=str(tmp_path / "disks"))
    assert found.disk == "/dev/sdc"


@pytest.mark.parametrize(
    "guest",
    [
        Guest(machine="microvm,firmware=/etc/shadow"), Guest(cpu="host -drive file=/etc/shadow"),
        Guest(irqchip="on,x=/y"), Guest(kind=GuestKind.HOST_PROGRAM, workload="x"),
    ],
    ids=str,
)  # fmt: skip
def test_a_guest_with_options_of_ones_own(guest: Guest, folder: Path) -> None:
    with pytest.raises(UsageError):
        allowed(replace(PLAN, guest=guest), options(folder), str(folder), os.getuid())


@pytest.mark.parametrize("when", ["kernel_params", "kernel_params_at_go"])
@pytest.mark.parametrize("name", ["firmware_class.path", "apparmor.mode", "printk.time", "kvmgt.x", "", "KVM.x"])
def test_a_parameter_of_another_module(name: str, when: str, folder: Path) -> None:
    """firmware_class.path is a folder of files that the kernel loads: it could be his own."""
    plan = from_json(Plan, json.dumps({**json.loads(to_json(PLAN)), when: [["kvm.halt_poll_ns", "0"], [name, "x"]]}))
    with pytest.raises(UsageError, match="module parameter"):
        allowed(plan, options(folder), str(folder), os.getuid())


def test_all_that_scenarios_set_can_be_set(folder: Path) -> None:
    found = [tomllib.loads(path.read_text()) for path in sorted((REPOSITORY / "tests/scenarios").glob("*.toml"))]
    tables = [one.get(key, {}) for one in found for key in ("kernel_params", "kernel_params_at_go")]
    params = tuple(sorted({name: value for table in tables for name, value in table.items()}.items()))
    assert params
    wanted = replace(PLAN, kernel_params=params, kernel_params_at_go=(("kvm.apf_mutant", "1"),))
    assert allowed(wanted, options(folder), str(folder), os.getuid()).out


def test_who_calls() -> None:
    assert caller({}) is None
    assert caller({"SUDO_UID": "0"}) is None
    assert caller({"SUDO_UID": "1000"}) == 1000


def test_a_place_that_is_no_runs(tmp_path: Path) -> None:
    for folder in ("", "/etc", f"/run/apf-runs/{secrets.token_hex(4)}", "/run/apf-runs/../../etc", str(tmp_path)):
        with pytest.raises(UsageError), contextlib.nullcontext():
            check_place("", folder)
