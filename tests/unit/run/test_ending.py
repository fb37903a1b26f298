# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that end us: the first raises, and none of those that follow breaks off what it has begun."""

from __future__ import annotations

import datetime
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.results import RunResult
from harness.run import pool, runner, whole_file
from harness.run.ending import ENDING, OURS, Ending, Interrupted, install
from harness.run.run_folder import RunFolder
from harness.run.whole_file import write_whole
from tests.unit.run.test_pool import StandIn, perform
from tests.unit.waiting import HANG_S

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def ours() -> Iterator[None]:
    before = {number: signal.signal(number, OURS.handle) for number in ENDING}
    yield
    for number, action in before.items():
        signal.signal(number, action)


@pytest.fixture
def small_heap() -> Iterator[None]:
    """A second signal asks the collector: what thousands of tests have left in this process is nothing to it."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def strike() -> None:
    """Each of them, one after the other."""
    for number in ENDING:
        signal.raise_signal(number)


def test_more_signals_do_not_break_off_what_the_first_has_begun(capfd: pytest.CaptureFixture[str]) -> None:
    done = []
    with pytest.raises(Interrupted) as told:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            strike()
            done.append("tidied up")
    assert (done, str(told.value)) == (["tidied up"], "SIGTERM")
    assert capfd.readouterr().err.count("this ends in order") == len(ENDING)


def test_what_has_been_dealt_with_does_not_stand_in_the_way_of_the_next() -> None:
    for number in ENDING:
        with pytest.raises(Interrupted, match=number.name):
            signal.raise_signal(number)


def test_what_is_left_in_a_circle_has_been_dealt_with() -> None:
    def in_a_circle() -> None:
        kept = []
        try:
            signal.raise_signal(signal.SIGINT)
        except Interrupted as exc:
            kept.append(exc)  # its traceback knows this frame, which knows it

    in_a_circle()
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGINT)


def test_what_a_destructor_has_swallowed_was_none(monkeypatch: pytest.MonkeyPatch) -> None:
    swallowed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: swallowed.append(told.exc_type))

    class Dies:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    Dies()
    assert swallowed == [Interrupted]
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)


def test_what_is_held_is_done_whole() -> None:
    done = []
    with pytest.raises(Interrupted, match="SIGHUP"), OURS.held():
        with OURS.held():
            strike()
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    with OURS.held():  # it has been raised: nothing is left of it
        pass


def test_nor_is_anything_left_of_a_second_one_that_was_held() -> None:
    ending = Ending(told=2)
    with pytest.raises(Interrupted) as first, ending.held():
        ending.handle(signal.SIGTERM)
    assert first.value is not None  # still on its way
    with suppress(Interrupted), ending.held():
        ending.handle(signal.SIGTERM)
    del first
    gc.collect()
    with ending.held():
        pass


def test_what_was_ignored_stays_so() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    install(Ending())
    signal.raise_signal(signal.SIGINT)  # a shell without job control
    signal.raise_signal(signal.SIGHUP)  # nohup
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)


# Files of a run.


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "page", "before", 0o755)

    def half(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:2])
        signal.raise_signal(signal.SIGTERM)
        return len(data)

    with monkeypatch.context() as here:
        here.setattr(Path, "write_bytes", half)
        with pytest.raises(Interrupted):
            write_whole(tmp_path / "page", "afterwards")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page", "before")]
    write_whole(tmp_path / "page", "afterwards")
    assert (tmp_path / "page").read_text() == "afterwards"
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o755


def test_what_is_no_plain_file_is_written_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("before")
    (tmp_path / "link").symlink_to("page")
    write_whole(tmp_path / "link", "afterwards")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "page").read_text() == "afterwards"
    assert write_whole(Path(os.devnull), "nobody") == Path(os.devnull) and not Path(os.devnull).is_file()


class Strikes:
    """Calls what it stands for, and is struck at its n-th call, before or after it; ``more``: and at each later one."""

    def __init__(self, real: Callable[..., object], at: int, *, more: bool, first: bool) -> None:
        self._real, self._at, self._more, self._first = real, at, more, first
        self.calls = 0

    def __call__(self, *args: object) -> object:
        self.calls += 1
        strikes = self.calls == self._at or (self._more and self.calls > self._at)
        if strikes and self._first:
            strike()
        done = self._real(*args)
        if strikes and not self._first:
            strike()
        return done


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_run_is_whole_whenever_it_is_struck(
    first: bool, more: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each file that it writes, and at each after that while it ends."""
    monkeypatch.setattr(pool, "start_worker", StandIn)
    monkeypatch.setattr(runner, "start_worker", StandIn)
    monkeypatch.chdir(tmp_path)
    real = whole_file.Path.replace
    at, ended = 0, 0
    while True:
        at += 1
        strikes = Strikes(real, at, more=more, first=first)
        with monkeypatch.context() as here:
            here.setattr(Path, "replace", lambda *args, by=strikes: by(*args))
            try:
                result, folder, _ = perform("A B", "one", hosts=1)
            except Interrupted:
                ended += 1
                assert not list(Path("results").glob(".*")), at
                continue
        if strikes.calls < at:
            break
        check(result, folder)
    assert not result.interrupted and at > 10
    # Before there is a run, and once all of it is written and only its last files are written again.
    assert ended < at / 2


def check(result: RunResult, folder: Path) -> None:
    """What the files of a run say is what it has come to, and nothing is missing of what they say."""
    assert result.interrupted or not result.missing
    told = json.loads((folder / "results.json").read_text())
    assert told["interrupted"] is result.interrupted
    assert [row["scenario"] for row in told["verdicts"]] == [row.key.scenario for row in result.rows]
    for row in told["verdicts"]:
        assert json.loads((folder / row["verdict_file"]).read_text())["status"] == row["verdict"]
    assert (folder / "index.html").read_text().rstrip().endswith("</html>")
    assert not list(folder.rglob(".*.part"))


def test_a_verdict_that_is_read_in_part_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal between the head and the body of a message."""
    monkeypatch.setattr(pool, "start_worker", StandIn)
    monkeypatch.chdir(tmp_path)
    real = pool.Connection._recv  # type: ignore[attr-defined]
    reads = Strikes(real, 2, more=False, first=True)
    parent = os.getpid()

    def recv(self: object, *args: object) -> object:
        return reads(self, *args) if os.getpid() == parent else real(self, *args)

    monkeypatch.setattr(pool.Connection, "_recv", recv)
    result, folder, listener = perform("A B C D E F G H", "one", hosts=2)
    assert result.interrupted
    assert ("one", "making") in listener.told or result.rows == ()
    check(result, folder)


# Processes.

_GROUP = """
import os, signal, sys
from harness.run import ending, pool
from tests.unit.run.test_pool import StandIn, perform

class Struck(StandIn):
    def perform(self, job):
        if job.scenario.id == "B":
            os.killpg(0, signal.Signals[{signal!r}])
            while True:
                signal.pause()
        return super().perform(job)

for number in ending.ENDING:
    signal.signal(number, signal.SIG_DFL)
ending.install()
pool.start_worker = Struck
result, _, _ = perform("A B C D E", "one two")
print("told by", os.getpid(), result.interrupted, sorted({{row.status.name for row in result.rows}}), flush=True)
"""


@pytest.mark.parametrize("which", ["SIGINT", "SIGHUP"])
def test_what_reaches_the_whole_group_ends_it_in_order(which: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _GROUP.format(signal=which)], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as run:  # fmt: skip
        out, err = run.communicate(timeout=HANG_S)
    told = [line for line in out.splitlines() if line.startswith("told by")]
    assert told and told[0].split()[2:4] == [str(run.pid), "True"], out + err
    assert "Traceback" not in err
    assert (tmp_path / "tidy-one").read_text() == "Interrupted"
    (folder,) = (tmp_path / "results").glob("2*")
    assert json.loads((folder / "results.json").read_text())["interrupted"]


def test_the_link_to_the_newest_run_is_there_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", lambda *_args: strike())
    with pytest.raises(Interrupted):
        RunFolder.create(tmp_path, datetime.datetime.now())
    assert not [path for path in tmp_path.iterdir() if path.is_symlink()]
