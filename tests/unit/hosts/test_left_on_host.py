# SPDX-License-Identifier: GPL-2.0-or-later
"""What a plan's agent could not take back is known to whoever has the machine next: the real agent, which waits less
for what resists, on this machine with a /run of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.agent.host.undo import Journal
from harness.artifacts.images import images
from harness.artifacts.store import Store
from harness.contract.capture import RunEnd
from harness.contract.structure import from_json
from harness.errors import InfraFault
from harness.hosts.local import LocalStream
from harness.hosts.performer import Payload, Performer
from harness.hosts.reserved_host import BareHost, ReservedHost, ReservedOrder, reserved_host
from harness.hosts.stream import Stream
from harness.progress import silent
from tests.unit.agent.conftest import make_plan, root_only
from tests.unit.agent.conftest import probe_elf as probe_elf

pytestmark = [root_only, pytest.mark.usefixtures("host_settings")]

IMPATIENT = """\
import sys
sys.path.insert(0, {agent!r})
from harness.agent.host import undo
undo.undo.__defaults__ = (0.2, ())
undo.Journal.undo_all.__defaults__ = (0.2,)
from harness.agent.__main__ import main
sys.exit(main())
"""


class Here(BareHost):
    """This machine, with another folder as /run: what is left there is no matter of other agents."""

    name = "here"

    def __init__(self, run: Path) -> None:
        self._run = run

    def start(self, argv: list[str]) -> Stream:
        return LocalStream(
            ["unshare", "-m", "sh", "-c", f'mount --bind {self._run} /run && exec "$@"', "sh", *argv]
        )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def order(tmp_path: Path) -> ReservedOrder:
    (tmp_path / "agent.py").write_text(IMPATIENT.format(agent=str(images.agent_zipapp(Store()))))
    return ReservedOrder("local", tmp_path / "agent.py", silent, disk="/dev/null", compare=False)


def capture_of(host: ReservedHost, run: Path, nonce: int) -> Path:
    """The folder of a run's capture on the machine, as we see it."""
    return run / host.facts.folder.removeprefix("/run/") / f"{nonce:016x}"


def perform(host: ReservedHost, order: ReservedOrder, probe: Path, nonce: int, out: Path) -> RunEnd:
    """Perform a plan that no machine can: for a guest of 16 TiB."""
    plan = make_plan()
    performer = Performer(host, Payload(order.agent, probe))
    try:
        large = replace(plan.guest, memory_mib=1 << 24)
        performer.perform(replace(plan, nonce=nonce, guest=large), out, lambda _step, _told: None)
    finally:
        performer.close()
    return from_json(RunEnd, (out / "end.json").read_text())


def test_what_resists_is_told_to_the_next_run_until_it_is_taken_back(
    run: Path, order: ReservedOrder, probe_elf: Path, tmp_path: Path
) -> None:
    stays = tmp_path / "stays"
    stays.mkdir()
    (stays / "file").touch()
    with (
        pytest.raises(InfraFault, match="here is not as before: directory ") as caught,
        reserved_host(Here(run), order) as host,
    ):
        left = capture_of(host, run, 7)
        left.mkdir()
        Journal(str(left / "journal.jsonl")).change("directory", path=str(stays))
        end = perform(host, order, probe_elf, 7, tmp_path / "out")
        assert not end.undone and str(stays) in end.reason
        assert left.is_dir(), "its journal is nowhere else"
    assert caught.value.message.count("directory {") == 1, "told once, though the agent's own journal names it, too"
    with (
        pytest.raises(InfraFault, match="is not as it was before an earlier run: directory "),
        reserved_host(Here(run), order),
    ):
        pass
    (stays / "file").unlink()
    with reserved_host(Here(run), order):
        assert not stays.exists() and not left.exists()
    assert [path.name for path in run.rglob("*")] == ["apf-runs", "lock"]


def test_of_a_plan_that_was_undone_nothing_stays(
    run: Path, order: ReservedOrder, probe_elf: Path, tmp_path: Path
) -> None:
    with reserved_host(Here(run), order) as host:
        for nonce in (7, 8):
            end = perform(host, order, probe_elf, nonce, tmp_path / str(nonce))
            assert end.undone
            assert not capture_of(host, run, nonce).exists()
