# SPDX-License-Identifier: GPL-2.0-or-later
"""`apf bisect-step` as git runs it: a process whose exit code is the answer.

git-bisect(1): 0 is good, 125 skips the revision, everything else below 128 is bad, 128 and above end the bisection."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.artifacts.kernels import kbuild
from harness.errors import InfraFault
from harness.run.bisect import question
from tests.unit.artifacts.faketree import make_tree
from tests.unit.cli.command import Done, apf
from tests.unit.scenarios import all_scenarios
from tests.unit.waiting import HANG_S

NO_ANSWER = 128


class Tree:
    """A kernel tree in git, with one commit; ``state``: what bisect-step knows of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / ".git/apf-bisect.json"
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str) -> Done:
        who = {f"GIT_{who}_{what}": "t@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return subprocess.run(
            ["git", *words], cwd=self.folder, env={**os.environ, **who, "GIT_CONFIG_GLOBAL": "/dev/null"},
            capture_output=True, text=True, check=False, timeout=HANG_S,
        )  # fmt: skip

    def commit(self) -> str:
        """What lies there, as a revision."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "HEAD").stdout.strip()

    def know(self, *, verdicts: list[object]) -> None:
        """As if these verdicts had been had of the revision."""
        head = self.git("rev-parse", "HEAD").stdout.strip()
        about = question([all_scenarios()["S23"]], "nowait")
        self.state.write_text(json.dumps({"about": about, "verdicts": {head: verdicts}, "skipped": {}}))

    def skipped(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.state.read_text())["skipped"] if self.state.exists() else {}
        return found


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A kernel of which nothing is known yet."""
    (tmp_path / "linux").mkdir()
    made = Tree(tmp_path / "linux")
    for name in ("Kconfig", "Makefile"):
        (made.folder / name).write_text("x\n")
    made.commit()
    return made


def step(tree: Tree, *words: str, **env: str) -> Done:
    return apf("bisect-step", "--tree", tree.folder, *words, cwd=tree.folder.parent, **env)


def not_a_verdict(done: Done, whose: str) -> None:
    """git ends the bisection, and a person is told why."""
    assert done.returncode == NO_ANSWER, done.stdout + done.stderr
    assert f"apf: {whose}, and no answer about this revision" in done.stderr
    assert "`git bisect run` again" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("S999",),
        ("S23", "--no-such-option"),
        (),
        ("S23", "--host", "local"),
        ("S23", "--repeats", "0"),
        ("S23", "--allow-unsupported", "S999"),
        ("S23", "--accept-findings", "/no/such/file"),
        ("S23", "--on", "tcp://127.0.0.1:1"),
        ("S23", "--tree", "/no/such/tree"),
    ],
    ids=" ".join,
)
def test_what_was_asked_wrongly_is_no_verdict_about_the_kernel(tree: Tree, words: tuple[str, ...]) -> None:
    not_a_verdict(step(tree, *words), "bad usage or input")
    assert not tree.state.exists()


def test_a_scenario_file_that_is_wrong_is_no_verdict(tree: Tree) -> None:
    bad = tree.folder.parent / "bad.toml"
    bad.write_text('id = "X1"\ntitle = "no steps, and a key that there is not"\nsize = 7\n')
    not_a_verdict(step(tree, str(bad)), "bad usage or input")


def test_a_state_file_that_is_none(tree: Tree) -> None:
    tree.state.write_text("dear git")
    not_a_verdict(step(tree, "S23"), "bad usage or input")


def test_a_bug_of_ours_is_no_verdict(tree: Tree) -> None:
    """What nobody has thought of: a verdict in the state file that is no word."""
    tree.know(verdicts=["PASS", 7])
    done = step(tree, "S23")
    not_a_verdict(done, "our or the machine's fault")
    assert "Traceback" in done.stderr and "bug in the harness: TypeError" in done.stderr


def test_a_cache_that_cannot_be_written_is_no_verdict_and_is_not_remembered(tree: Tree) -> None:
    (tree.folder.parent / "cache").write_text("a file is in the way")
    done = step(tree, "S23", XDG_CACHE_HOME=str(tree.folder.parent / "cache"))
    not_a_verdict(done, "our or the machine's fault")
    assert "XDG_CACHE_HOME" in done.stderr and tree.skipped() == {}


def test_a_kernel_that_no_model_describes_is_skipped(tree: Tree) -> None:
    """Its revision is known to be too old before anything is built, and a later version of the model may know it."""
    (tree.folder / "Makefile").write_text("VERSION = 5\nPATCHLEVEL = 4\nSUBLEVEL = 0\n")
    tree.commit()
    done = step(tree, "S23")
    assert done.returncode == 125, done.stdout + done.stderr
    assert "skip" in done.stdout and tree.skipped() == {}


@pytest.mark.parametrize(("verdict", "code"), [("PASS", 0), ("FAIL", 1)])
def test_nobody_reads_what_it_says_and_the_answer_is_the_same(tree: Tree, verdict: str, code: int) -> None:
    """`git bisect run ... | tee log`, and tee is gone; and where it cannot answer, that is no "good" either."""
    tree.know(verdicts=[verdict])
    words = [sys.executable, "-m", "harness.cli", "bisect-step", "--tree", str(tree.folder)]

    def unread(*more: str) -> int:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as end:
            return subprocess.run([*words, *more], stdout=end, stderr=end, timeout=HANG_S, check=False).returncode

    assert unread("S23") == code
    assert unread("S999") == NO_ANSWER


def test_without_any_output_the_answer_is_the_same(tree: Tree) -> None:
    """Both descriptors are closed before it begins."""
    tree.know(verdicts=["PASS"])
    for word, code in (("S23", 0), ("S999", NO_ANSWER)):
        words = [sys.executable, "-m", "harness.cli", "bisect-step", "--tree", str(tree.folder), word]
        done = subprocess.run(["sh", "-c", f"exec {shlex.join(words)} >&- 2>&-"], timeout=HANG_S, check=False)
        assert done.returncode == code


def test_git_itself_ends_the_bisection(tree: Tree) -> None:
    good = tree.commit()
    tree.commit()
    bad = tree.commit()
    tree.git("bisect", "start", bad, good)
    words = [sys.executable, "-m", "harness.cli", "bisect-step", "--tree", str(tree.folder)]
    done = tree.git("bisect", "run", *words, "S999")
    assert done.returncode != 0
    assert "first bad commit" not in done.stdout.replace("# first bad commit", "")
    assert "git bisect bad" not in tree.git("bisect", "log").stdout.partition("git bisect start")[2]


@pytest.fixture
def buildable(tmp_path: Path) -> Tree:
    """A tree that our builder can make a kernel of, in a blink (faketree.py)."""
    try:
        kbuild.check_tools()
    except InfraFault as exc:
        pytest.skip(exc.message)
    make_tree(tmp_path / "linux")
    return Tree(tmp_path / "linux")


def test_a_revision_that_does_not_build_is_skipped_for_ever(buildable: Tree, tmp_path: Path) -> None:
    (buildable.folder / "virt/async_pf.c").write_text("BROKEN\n")
    head = buildable.commit()
    done = step(buildable, "S23", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 125, done.stdout + done.stderr
    assert "does not build" in buildable.skipped()[head]


def test_a_compiler_that_has_no_room_is_not_the_revisions_fault(buildable: Tree, tmp_path: Path) -> None:
    source = buildable.folder / "virt/async_pf.c"
    source.write_text("BROKEN, says gcc: fatal error: /tmp/cc.s: No space left on device\n")
    makefile = buildable.folder / "Makefile"
    makefile.write_text(makefile.read_text().replace("BROKEN is not C", "No space left on device"))
    buildable.commit()
    not_a_verdict(step(buildable, "S23", XDG_CACHE_HOME=str(tmp_path / "cache")), "our or the machine's fault")
    assert buildable.skipped() == {}


def test_results_that_cannot_be_written_are_no_verdict(buildable: Tree, tmp_path: Path) -> None:
    buildable.commit()
    (tmp_path / "results").write_text("a file is in the way")
    done = step(buildable, "S23", "--results", str(tmp_path / "results"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    not_a_verdict(done, "our or the machine's fault")
    assert "cannot write results" in done.stderr and buildable.skipped() == {}
