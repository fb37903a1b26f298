# SPDX-License-Identifier: GPL-2.0-or-later
"""Places of labgrid, with its own coordinator on loopback: who has one, where it is, and that it is released."""

from __future__ import annotations

import getpass
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts import layout
from harness.artifacts.images import images
from harness.artifacts.store import Store
from harness.errors import HostLost, InfraFault, UsageError
from harness.hosts import HostOrder, find_host
from harness.hosts.lab_file import LabHost, lab_text
from harness.hosts.labgrid_place import acquired
from harness.hosts.performer import Payload
from harness.hosts.reservation import HostBusy
from harness.hosts.ssh import connect
from harness.progress import silent
from tests.unit.hosts.dropbear import start_dropbear
from tests.unit.hosts.labgrid_lab import Labgrid, start_labgrid
from tests.unit.waiting import HANG_S

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGXr3k575XaeLRWBDLjOcYq+Xq2kRJUKx1rNv+t+JRM1"
SERVICE = '  NetworkService:\n    address: "{}"\n    username: root\n    port: {}\n'
OTHER = {"LG_USERNAME": "somebody", "LG_HOSTNAME": "elsewhere"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labgrid]:
    places = {
        "box": SERVICE.format("192.0.2.7", 2222),
        "bare": "",
        "option": SERVICE.format("-oProxyCommand=date", 22),
    }
    with start_labgrid(tmp_path_factory.mktemp("labgrid"), places) as started:
        yield started


def entry(lab: Labgrid, name: str = "box") -> LabHost:
    return LabHost(name, "", "root", Path("/nonexistent"), KEY, coordinator=lab.address)


@pytest.mark.long
def test_a_place_is_had_for_the_run_and_released(lab: Labgrid) -> None:
    with acquired(entry(lab), 0, silent) as found:
        assert (found.address, found.port, found.host_key) == ("192.0.2.7", 2222, KEY)
        assert re.fullmatch(rf"{socket.gethostname()}/apf-{os.getpid()}-\d+", lab.holder("box"))
    assert lab.holder("box") == ""
    with pytest.raises(RuntimeError), acquired(entry(lab), 0, silent):
        raise RuntimeError("the run ends badly")
    assert lab.holder("box") == ""


@pytest.mark.long
def test_a_place_of_somebody_else_is_busy_and_stays_his(lab: Labgrid) -> None:
    lab.client("-p", "box", "acquire", **OTHER)
    try:
        with pytest.raises(HostBusy, match="acquired by elsewhere/somebody"), acquired(entry(lab), 0, silent):
            pass
        assert lab.holder("box") == "elsewhere/somebody"
        heard: list[str] = []

        def on_waiting(what: str, done: float | None = None) -> None:
            heard.append(what)
            if len(heard) == 1:
                threading.Thread(target=lambda: lab.client("-p", "box", "release", **OTHER)).start()

        with acquired(entry(lab), 100, on_waiting):
            assert lab.holder("box") != "elsewhere/somebody"
        assert "waiting for the place box, which is acquired by elsewhere/somebody" in heard
    finally:
        if lab.holder("box"):
            lab.client("-p", "box", "release", "--kick")


@pytest.mark.long
def test_a_place_that_was_acquired_by_hand_is_used_and_left_so(lab: Labgrid) -> None:
    lab.client("-p", "box", "acquire")
    mine = f"{socket.gethostname()}/{getpass.getuser()}"
    assert lab.holder("box") == mine
    with acquired(entry(lab), 0, silent) as found:
        assert found.address == "192.0.2.7"
    assert lab.holder("box") == mine
    lab.client("-p", "box", "release")


HOLD = """
import sys
from pathlib import Path
from harness.hosts.lab_file import LabHost
from harness.hosts.labgrid_place import acquired
entry = LabHost("box", "", "root", Path("/nonexistent"), sys.argv[1], coordinator=sys.argv[2])
with acquired(entry, 0, lambda *_: None):
    print("had", flush=True)
    sys.stdin.read()
"""


def hold(lab: Labgrid, **env: str) -> subprocess.Popen[str]:
    """A run that has the place."""
    run = subprocess.Popen(
        [sys.executable, "-c", HOLD, KEY, lab.address], cwd=layout.REPOSITORY, env=os.environ | env,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None and run.stdout.readline() == "had\n"
    return run


@pytest.mark.long
def test_what_a_killed_run_has_left_is_released_by_the_next(lab: Labgrid) -> None:
    run = hold(lab)
    with pytest.raises(HostBusy), acquired(entry(lab), 0, silent):
        pass  # it lives
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=HANG_S)
    assert lab.holder("box").startswith(f"{socket.gethostname()}/apf-{run.pid}-")
    with acquired(entry(lab), 0, silent):
        assert f"/apf-{os.getpid()}-" in lab.holder("box")
    assert lab.holder("box") == ""


@pytest.mark.long
def test_a_run_of_another_machine_is_not_taken_for_dead(lab: Labgrid) -> None:
    run = hold(lab, LG_HOSTNAME="elsewhere")
    run.kill()
    run.communicate(timeout=HANG_S)
    with pytest.raises(HostBusy, match=f"elsewhere/apf-{run.pid}"), acquired(entry(lab), 0, silent):
        pass
    lab.client("-p", "box", "release", "--kick")


@pytest.mark.long
def test_what_cannot_be_had(lab: Labgrid) -> None:
    for wanted, error, why in (
        (entry(lab, "absent"), UsageError, "has no place 'absent'"),
        (entry(lab, "bare"), InfraFault, "the place bare has no NetworkService"),
        (entry(lab, "option"), InfraFault, "that is no address"),
    ):
        with pytest.raises(error, match=why), acquired(wanted, 0, silent):
            pass
    assert lab.holder("bare") == lab.holder("option") == ""


@pytest.mark.long
def test_nobody_answers(lab: Labgrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.hosts.labgrid_place._ANSWER_S", 1.0)
    with pytest.raises(HostLost, match=r"no coordinator answers at 127\.0\.0\.1:1"), acquired(
        replace(entry(lab), coordinator="127.0.0.1:1"), 0, silent
    ):  # fmt: skip
        pass


@pytest.mark.long
def test_without_labgrid_it_is_told_how_to_have_it(lab: Labgrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "labgrid.remote.generated", None)
    with pytest.raises(InfraFault, match="needs the Python package labgrid") as caught, acquired(entry(lab), 0, silent):
        pass
    assert caught.value.hint == "pip install 'apf-harness[labgrid]'"


def test_nothing_of_it_is_imported_unless_it_is_asked_for() -> None:
    script = "import sys, harness.cli.run, harness.run.runner; print({'grpc', 'labgrid'} & set(sys.modules))"
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, cwd=layout.REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def order(path: Path, name: str) -> HostOrder:
    payload = Payload(images.agent_zipapp(Store()), Path("/nonexistent"))
    return HostOrder(Store(), None, payload, Path, silent, name=name, lab=path)


@pytest.mark.long
def test_the_machine_is_reached_where_the_place_is(tmp_path: Path) -> None:
    """A real SSH server behind a place: its kernel is asked for, and the place is free again."""
    (tmp_path / "server").mkdir()
    with (
        start_dropbear(tmp_path / "server") as server,
        start_labgrid(tmp_path, {"box": SERVICE.format("127.0.0.1", server.port)}) as lab,
    ):
        known = replace(entry(lab), key=server.client_key, host_key=server.host_key)
        path = tmp_path / "lab.toml"
        path.write_text(lab_text("box", known))
        choice = find_host("labgrid:box", path)
        assert (choice.boots, choice.own().label) == (False, "box")
        opener = choice.kind.prepare(order(path, "box"))
        assert opener.facts == {"box release": os.uname().release, "box kernel": os.uname().version}
        assert lab.holder("box") == ""
        path.write_text(lab_text("box", replace(known, host_key=KEY)))
        with pytest.raises(HostLost, match=r"box: .*key"):
            choice.kind.prepare(order(path, "box"))
        assert lab.holder("box") == ""


def test_a_machine_of_the_file_that_is_no_place_and_a_place_without_an_address(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    plain = LabHost("plain", "192.0.2.7", "root", Path("/nonexistent"), KEY)
    path.write_text(lab_text("plain", plain) + lab_text("box", replace(plain, address="", coordinator="a:1")))
    with pytest.raises(UsageError, match="plain has no coordinator"):
        find_host("labgrid:plain", path).kind.prepare(order(path, "plain"))
    with pytest.raises(UsageError, match="box has no address: it is a place of labgrid, --host labgrid:box"):
        connect(path, "box")
