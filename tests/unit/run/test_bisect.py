# SPDX-License-Identifier: GPL-2.0-or-later
"""`git bisect run` over a small real history finds the commit that broke it.

The builder is the real one, on the tree of faketree.py that builds in a blink.  Booting what comes out of it would be
no kernel, so the half after the build is read from the image: a bad commit leaves a word in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.errors import InfraFault, UsageError
from harness.hosts.virtual.virtual_host import DID_NOT_BOOT
from harness.judge.verdict_types import Stage
from harness.results import Key, Row
from harness.run.bisect import Answer, BisectState, Untestable, question, revision_of, state_path, step
from harness.status import Status
from tests.unit.artifacts.faketree import FRAGMENT, make_tree
from tests.unit.rows import row_of
from tests.unit.scenarios import all_scenarios
from tests.unit.waiting import HANG_S

DRIVER = """
import os, sys
from pathlib import Path
from harness.artifacts.kernels import builder, kbuild
from harness.artifacts.catalog import CatalogKernel, SourceKind
from harness.progress import silent
from harness.artifacts.store import Store
from harness.status import Status
from harness.results import Key, Row
from harness.errors import BuildFailed
from harness.run.bisect import BisectState, Untestable, revision_of, state_path, step
from harness.judge.verdict_types import Verdict

tree, work = Path(sys.argv[1]), Path(sys.argv[2])
kbuild.TOOLS = ("gcc", "make", "patch", "setpriv")

def perform():
    entry = CatalogKernel("bisected", SourceKind.TREE, path=tree, config=(work / "all.config",))
    try:
        folder, _ = builder.build(Store(work / "cache"), entry, silent)
    except BuildFailed as exc:
        raise Untestable(exc.message, lasting=True) from exc
    with (work / "performed").open("a") as log:
        print(revision_of(tree), file=log)
    if (work / "kill-me").exists():
        (work / "kill-me").unlink()
        os.kill(os.getpid(), 9)
    lost = b"lost wake-up" in (folder / "bzImage").read_bytes()
    return [Row(Key("S23", "bisected"), Verdict(scenario="S23", status=Status.FAIL if lost else Status.PASS))]

sys.exit(int(step(BisectState.load(state_path(tree)), revision_of(tree), int(sys.argv[3]), perform, print)))
"""


class History:
    """A tree with commits c1, c2, ..."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = make_tree(folder / "linux")
        (folder / "all.config").write_text(FRAGMENT)
        (folder / "driver.py").write_text(DRIVER)
        self.git("init", "-q", "-b", "main")
        self.commits: list[str] = []

    def git(self, *words: str) -> str:
        env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(self.folder)}
        for who in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{who}_NAME": "t", f"GIT_{who}_EMAIL": "t@example"}
        done = subprocess.run(
            ["git", *words], cwd=self.tree, env=env, capture_output=True, text=True, check=False, timeout=HANG_S
        )
        self.code = done.returncode
        return done.stdout + done.stderr

    def commit(self, name: str, text: str) -> None:
        (self.tree / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", f"{name}: {text.splitlines()[-1]}")
        self.commits.append(self.git("rev-parse", "HEAD").strip())

    def bisect(self, repeats: int = 1) -> str:
        driver = [sys.executable, str(self.folder / "driver.py"), str(self.tree), str(self.folder), str(repeats)]
        return self.git("bisect", "run", *driver)

    def performed(self) -> list[str]:
        return (self.folder / "performed").read_text().split()


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Ten commits; the sixth loses a wake-up, and the fourth and the fifth do not build."""
    made = History(tmp_path)
    for n in range(1, 11):
        made.commit("virt/async_pf.c", "async\n" + ("BROKEN\n" if n in (4, 5) else "") + f"{n}\n"
                    + ("lost wake-up\n" if n >= 6 else ""))  # fmt: skip
    return made


@pytest.mark.long
def test_the_bad_commit_is_found_and_what_does_not_build_is_skipped(history: History) -> None:
    history.git("bisect", "start", history.commits[9], history.commits[0])
    said = history.bisect()
    # git cannot tell the bad commit from the ones before it that had to be skipped, and says so.
    assert "only 'skip'ped commits left" in said, said
    state = json.loads(state_path(history.tree).read_text())
    skipped = {history.commits.index(c) + 1 for c in state["skipped"]}
    assert skipped and skipped <= {4, 5}
    assert all("does not build" in why for why in state["skipped"].values())
    suspects = [c for c in history.commits if c in said.partition("first bad commit could be any of")[2]]
    assert history.commits[5] in suspects and history.commits[2] not in suspects


@pytest.mark.long
def test_a_bad_commit_between_good_ones_that_build(tmp_path: Path) -> None:
    made = History(tmp_path)
    for n in range(1, 11):
        made.commit("virt/async_pf.c", f"async\n{n}\n" + ("lost wake-up\n" if n >= 6 else ""))
    made.git("bisect", "start", made.commits[9], made.commits[0])
    said = made.bisect(repeats=2)
    assert f"{made.commits[5]} is the first bad commit" in said, said
    times = {c: made.performed().count(c) for c in made.performed()}
    # Two rounds make a good one; one FAIL is enough for a bad one.
    assert {made.commits.index(c) + 1: n for c, n in times.items()} == {
        made.commits.index(c) + 1: (1 if made.commits.index(c) >= 5 else 2) for c in times
    }


@pytest.mark.long
def test_after_a_kill_it_goes_on_where_it_was(tmp_path: Path) -> None:
    made = History(tmp_path)
    for n in range(1, 9):
        made.commit("virt/async_pf.c", f"async\n{n}\n" + ("lost wake-up\n" if n >= 5 else ""))
    made.git("bisect", "start", made.commits[7], made.commits[0])
    (tmp_path / "kill-me").touch()
    made.bisect()
    assert made.code != 0, "git stops when a step is killed"
    said = made.bisect()
    assert f"{made.commits[4]} is the first bad commit" in said, said
    asked_again = [c for c in made.performed() if made.performed().count(c) > 1]
    assert set(asked_again) == {made.performed()[0]}, "only the one that was killed is run twice"
    # And once more from the start: everything is known.
    before = len(made.performed())
    made.git("bisect", "reset")
    made.git("bisect", "start", made.commits[7], made.commits[0])
    assert "is the first bad commit" in made.bisect()
    assert len(made.performed()) == before


def rounds(*words: Status | Exception) -> Callable[[], Sequence[Row]]:
    left = list(words)

    def perform() -> Sequence[Row]:
        word = left.pop(0)
        if isinstance(word, Exception):
            raise word
        return [row_of(Key("S23", "bisected"), word), row_of(Key("S29", "bisected"), Status.PASS)]

    return perform


@pytest.mark.parametrize(
    ("words", "repeats", "answer"),
    [
        ([Status.PASS, Status.PASS, Status.PASS], 3, Answer.GOOD),
        ([Status.PASS, Status.PASS, Status.FAIL], 3, Answer.BAD),
        ([Status.INCONCLUSIVE, Status.PASS], 1, Answer.GOOD),
        ([Status.INCONCLUSIVE, Status.ERROR, Status.PASS], 1, Answer.GOOD),
        ([Untestable("it does not build", lasting=True)], 1, Answer.SKIP),
    ],
)
def test_answers(words: list[Status | Exception], repeats: int, answer: Answer, tmp_path: Path) -> None:
    told: list[str] = []
    state = BisectState(tmp_path / "state.json")
    assert step(state, "c" * 40, repeats, rounds(*words), told.append) is answer
    assert answer.name.lower() in told[-1]
    # Asked again it answers from the file, without performing anything.
    assert step(BisectState.load(state.path), "c" * 40, repeats, rounds(), told.append) is answer


def again(*, then: Status) -> Callable[[], Sequence[Row]]:
    """What is performed when git asks once more."""
    return lambda: [row_of(Key("S23", "bisected"), then)]


def test_a_kernel_that_dies_while_it_boots_is_skipped_and_that_is_remembered(tmp_path: Path) -> None:
    """It is the revision's own doing."""

    def perform() -> Sequence[Row]:
        return [row_of(Key("S23", "bisected"), Status.FAIL, "panic on the host: x", stage=Stage.BOOT)]

    state = BisectState(tmp_path / "s")
    assert step(state, "c" * 40, 1, perform, print) is Answer.SKIP
    assert step(BisectState.load(state.path), "c" * 40, 1, again(then=Status.PASS), print) is Answer.SKIP


def boots(reason: str, status: Status = Status.ERROR) -> Callable[[], Sequence[Row]]:
    """Rounds in which no host comes up, or one does only now and then."""
    return lambda: [row_of(Key("S23", "bisected"), status, reason, stage=Stage.BOOT)]


@pytest.mark.parametrize(
    "perform",
    [
        boots(f"{DID_NOT_BOOT} in 121 s"),
        lambda: [*boots("panic on the host", Status.FAIL)(), row_of(Key("S29", "bisected"), Status.PASS)],
        rounds(Status.INCONCLUSIVE, Status.ERROR, Status.UNSUPPORTED),
    ],
    ids=["hangs", "boots sometimes", "proves nothing"],
)
def test_what_may_be_the_machines_doing_is_skipped_this_time_only(
    perform: Callable[[], Sequence[Row]], tmp_path: Path
) -> None:
    state = BisectState(tmp_path / "s")
    assert step(state, "c" * 40, 1, perform, print) is Answer.SKIP
    assert not state.path.exists() or not BisectState.load(state.path).skipped
    assert step(BisectState.load(state.path), "c" * 40, 1, again(then=Status.PASS), print) is Answer.GOOD


def test_a_kernel_that_no_model_describes_is_skipped_and_asked_for_again_later(tmp_path: Path) -> None:
    state = BisectState(tmp_path / "s")
    assert step(state, "c" * 40, 1, rounds(Untestable("5.4 is not described")), print) is Answer.SKIP
    assert step(BisectState.load(state.path), "c" * 40, 1, again(then=Status.FAIL), print) is Answer.BAD


@pytest.mark.parametrize(
    "perform",
    [
        rounds(*[Status.ERROR] * 3),
        boots("QEMU ended: no memory"),
        lambda: [row_of(Key("S23", "bisected"), Status.ERROR, "no gcc", stage=Stage.SETUP)],
        lambda: [row_of(Key("S23", "bisected"), Status.UNSUPPORTED, "no QEMU", stage=Stage.SETUP)],
    ],
    ids=["perform", "boot", "setup", "unsupported"],
)
def test_errors_and_nothing_else_are_no_answer(perform: Callable[[], Sequence[Row]], tmp_path: Path) -> None:
    state = BisectState(tmp_path / "s")
    with pytest.raises(InfraFault, match="3 rounds ended in errors") as caught:
        step(state, "c" * 40, 1, perform, print)
    assert "git bisect skip" in caught.value.hint
    # What was not known is not remembered: the machine may be well again.
    assert step(BisectState.load(state.path), "c" * 40, 1, again(then=Status.PASS), print) is Answer.GOOD


def test_a_fail_is_bad_whatever_else_went_wrong(tmp_path: Path) -> None:
    def perform() -> Sequence[Row]:
        lost = row_of(Key("S29", "bisected"), Status.ERROR, "the link was lost", stage=Stage.PERFORM)
        return [lost, row_of(Key("S23", "bisected"), Status.FAIL, "D05: owed")]

    assert step(BisectState(tmp_path / "s"), "c" * 40, 1, perform, print) is Answer.BAD


def test_another_bisection_knows_nothing_of_the_last(tmp_path: Path) -> None:
    scenarios = all_scenarios()
    first = question([scenarios["S23"]], "nowait")
    assert first == question([scenarios["S23"]], "nowait")
    others = {question([scenarios["S29"]], "nowait"), question([scenarios["S23"]], "noio"), first}
    assert len(others) == 3
    state = BisectState(tmp_path / "s", about=first)
    assert step(state, "c" * 40, 1, again(then=Status.FAIL), print) is Answer.BAD
    for about in others:
        kept = BisectState.load(tmp_path / "s", about)
        assert bool(kept.verdicts) is (about == first)


def test_a_state_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "s").write_text('{"verdicts": 7}')
    with pytest.raises(UsageError, match="not the state of a bisection"):
        BisectState.load(tmp_path / "s")


def test_no_git_tree(tmp_path: Path) -> None:
    for ask in (revision_of, state_path):
        with pytest.raises(UsageError, match="not a git checkout"):
            ask(tmp_path)
