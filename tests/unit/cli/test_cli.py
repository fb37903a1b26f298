# SPDX-License-Identifier: GPL-2.0-or-later
"""The command as people meet it: output, errors and exit codes.

Of a process where that is the matter (what it loads, its output closed or full), else by a call (conftest.py)."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import COMMANDS, parser
from harness.cli.options import request_of
from harness.errors import UsageError
from harness.results import Key
from harness.run.repeat_command import repeat_command
from tests.unit.cli.command import Called, apf, one_message
from tests.unit.cli.no_machine import no_machine
from tests.unit.waiting import HANG_S

GOOD = """
id = "X1"
title = "one page"
[pages.f]
groups = 1
[[steps]]
touch = "f"
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_says_something(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser((command,)).parse_args([command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_help_has_every_command_and_loads_none(tmp_path: Path) -> None:
    done = apf("--help", cwd=tmp_path, python=("-X", "importtime"))
    assert done.returncode == 0
    for name, about in COMMANDS.items():
        assert re.search(rf"^ +{name}\s+{about.split()[0]}", done.stdout, re.MULTILINE)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "harness.cli" in loaded
    heavy = {name for name in loaded if name.startswith(("harness.cli.", "harness.judge", "harness.hosts"))}
    assert heavy == {"harness.cli.exit_code"}, "it is no command"


def test_without_a_command_the_help_is_printed(called: Called) -> None:
    done = called()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: apf") and "bisect-step" in done.stdout


@pytest.mark.parametrize("command", ["run", "compare", "validate", "bisect-step", "mutants"])
def test_what_runs_scenarios_has_the_same_options(command: str) -> None:
    done = parser((command,)).parse_args
    words = {"validate": ["--tree", "."], "bisect-step": ["S23"]}.get(command, [])
    args = done([command, *words, "--scenarios", "a", "--results", "r", "--allow-unsupported", "S1",
                 "--host", "local", "--wait", "2", "--disk", "/dev/null"])  # fmt: skip
    request = request_of(args, ("k",))
    assert request.scenario_paths == (Path("a"),)
    assert (request.results, request.allow_unsupported, request.kernels) == (Path("r"), frozenset({"S1"}), ("k",))
    assert (request.host, request.wait_s, request.disk) == ("local", 2.0, "/dev/null")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host-qemu", "potato"], "there is no QEMU 'potato'"),
        (["--guest-qemu", "/usr/bin/qemu-system-x86_64"], "there is no QEMU"),
        (["--guest-qemu", "trixie", "--host", "local"], "a local host has its own QEMU"),
    ],
)
def test_a_qemu_that_cannot_be_had_is_refused(words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        request_of(parser(("run",)).parse_args(["run", *words]), ("k",))


def test_a_repeated_verdict_has_the_same_qemus(tmp_path: Path) -> None:
    words = ["--host-qemu", "forky", "--guest-qemu", "trixie"]
    request = request_of(parser(("run",)).parse_args(["run", *words, "--results", str(tmp_path)]), ("debian-6.1",))
    assert (request.host_qemu, request.guest_qemu) == ("forky", "trixie")
    repeated = repeat_command(request, Key("S60", "debian-6.1"))
    assert repeated is not None and repeated[-4:] == words
    assert request_of(parser(("run",)).parse_args(repeated[3:]), ("debian-6.1",)).host_qemu == "forky"


def test_list_shows_the_scenarios_of_the_repository(called: Called) -> None:
    done = called("list")
    assert done.returncode == 0
    ids = {line.split()[0] for line in done.stdout.splitlines()}
    assert {"S20", "S23", "S60"} <= ids


def test_list_by_pattern(tmp_path: Path, called: Called) -> None:
    (tmp_path / "a.toml").write_text(GOOD)
    (tmp_path / "b.toml").write_text(GOOD.replace("X1", "X2"))
    done = called("list", "X2", "--scenarios", tmp_path)
    assert done.stdout.split()[0] == "X2"
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("groups = 1", "groups = 1\nsize = 7"), "'size'"),
        (("groups = 1", 'groups = "one"'), ".groups"),
        (("touch", "tuch"), "'tuch'"),
        (('touch = "f"', 'touch = "g"'), "g"),
        (("[pages.f]", "[pages.f"), "not TOML"),
    ],
)
def test_bad_scenario_is_one_message_with_file_and_key(
    tmp_path: Path, called: Called, change: tuple[str, str], told: str
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(GOOD.replace(*change))
    message = one_message(called("run", "--scenarios", bad, "--results", tmp_path / "r"), 2)
    assert str(bad) in message
    assert told in message
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["run", "S23", "--kernel", "no-such-kernel"],
        ["run", "S23", "--kernel", "/no/such/bzImage"],
        ["run", "S23", "--kernel", "."],
        ["run", "no-such-scenario"],
        ["run", "--scenarios", "/no/such/folder"],
        ["run", "--scenarios", "."],
        ["run", "S23", "--allow-unsupported", "S99"],
        ["run", "S23", "--host", "local", "--kernel", "debian-6.1 noio-6.1"],
        ["run", "S23", "--host", "local:box"],
        ["run", "S23", "--host", "ssh"],
        ["run", "S23", "--on", "tcp://192.0.2.7:8786"],
        ["run", "S23", "--host", "ssh:box", "--lab", "/no/such/lab.toml"],
        ["run", "S23", "--disk", "/dev/vdb"],
        ["compare", "debian-6.1", "noio-6.1", "S23", "--host", "local"],
        ["predict", "S23", "--kernel", "nowait:6.1;rm"],
        ["predict", "S23", "--kernel", "nowait:"],
        ["explain", "--backing", "anon-swapped", "--ra-pages", "100000000"],
        ["explain", "--backing", "anon-swapped", "--ra-pages", "-1"],
        ["explain", "--backing", "anon-swapped", "--page-cluster", "31"],
        ["explain", "--backing", "anon-swapped", "--window", "0"],
        ["list", "no-such-scenario"],
        ["judge", "/no/such/capture"],
        ["kernels", "no-such-kernel"],
    ],
)
def test_bad_input_is_exit_2_and_leaves_nothing(tmp_path: Path, called: Called, words: list[str]) -> None:
    one_message(called(*words), 2)
    assert list(tmp_path.iterdir()) == []


def test_messages_are_safe_for_a_terminal(tmp_path: Path, called: Called) -> None:
    """Whatever a name on the command line or in a file holds."""
    (tmp_path / "x.toml").write_text(GOOD.replace("one page", "\\u001b[2J\\u202e"))
    for words in (
        ["run", "S23", "--kernel", "/no/\x1b[31m\u202ered"],
        ["run", "S23\x1b[2J"],
        ["list", "--scenarios", "x.toml"],
    ):
        message = one_message(called(*words), 2)
        assert message.replace("\n", "").isprintable(), ascii(message)


def test_bad_command_line_is_exit_2(called: Called) -> None:
    for words in (["frobnicate"], ["run", "--repeats", "0"], ["run", "--no-such-option"]):
        done = called(*words)
        assert done.returncode == 2
        assert "usage: apf" in done.stderr
        assert "Traceback" not in done.stderr


def test_no_qemu_in_path(tmp_path: Path, called: Called) -> None:
    (tmp_path / "bin").mkdir()
    message = one_message(called("run", "S23", PATH=str(tmp_path / "bin")), 3)
    assert "qemu-system-x86_64" in message
    assert "make setup" in message
    assert not (tmp_path / "results").exists()


def test_results_that_cannot_be_written(tmp_path: Path, called: Called) -> None:
    (tmp_path / "results").write_text("a file is in the way")
    assert "results" in one_message(called("run", "S23"), 3)


def test_a_disk_that_is_full_is_told_with_the_file_and_what_to_do(tmp_path: Path) -> None:
    """No file of the process may become larger than 64 bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", "S23", *no_machine(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, timeout=HANG_S, check=False, preexec_fn=limit,
    )  # fmt: skip
    message = one_message(done, 3)
    assert "/results.json: File too large" in message and "--results chooses another folder" in message


def test_a_cache_that_cannot_be_written_is_told_and_no_verdict_is_made_up(tmp_path: Path, called: Called) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    done = called("run", "S23", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert "cache" in one_message(done, 3)
    assert "PASS" not in done.stdout


def test_doctor_without_tools(tmp_path: Path, called: Called) -> None:
    done = called("doctor", PATH=str(tmp_path))
    assert done.returncode == 3
    assert "MISSING  qemu-system-x86_64" in done.stdout
    assert "scenarios on packaged kernels: no" in done.stdout


def test_doctor_changes_nothing(tmp_path: Path, called: Called) -> None:
    called("doctor", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m harness.cli list | head -n 1; true"],
        capture_output=True, text=True, cwd=tmp_path, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_an_old_capture_without_end_is_inconclusive(tmp_path: Path, called: Called) -> None:
    (tmp_path / "capture").mkdir()
    (tmp_path / "capture" / "facts.json").write_text('{"release": "6.1.192"}')
    done = called("judge", tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("INCONCLUSIVE")


def test_a_folder_that_is_no_capture_is_bad_input(tmp_path: Path, called: Called) -> None:
    (tmp_path / "letter.txt").write_text("dear kernel")
    (tmp_path / "verdict.json").write_text("{}")
    message = one_message(called("judge", tmp_path), 2)
    assert "is no capture" in message and len(message.splitlines()) == 1


def test_no_space_for_results(tmp_path: Path) -> None:
    """/dev/full fails every write with ENOSPC, as a full disk does."""
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m harness.cli rules > /dev/full"],
        capture_output=True, text=True, cwd=tmp_path, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert "No space left" in one_message(done, 3)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("compare", "debian-6.1", "noio-6.1"), "--host local has one kernel, the one that it runs"),
        (("matrix", "--kernels", "debian-6.1,noio-6.1"), "--host local has one kernel, the one that it runs"),
        (
            ("bisect-step", "S23"),
            "a bisection boots another kernel at each step, and --host local has the one it runs",
        ),
    ],
)
def test_what_needs_other_kernels_is_refused_where_there_is_one(
    words: tuple[str, ...], why: str, tmp_path: Path, called: Called
) -> None:
    said = one_message(called(*words, "--host", "local"), 128 if words[0] == "bisect-step" else 2)
    assert why in said
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("matrix",), "--kernels names no kernel"),
        (("explore", "--plans", "1", "--on", "tcp://192.0.2.7:1"), "anybody who reaches it"),
    ],
)
def test_what_a_fleet_or_a_virtual_host_cannot_do(words: tuple[str, ...], why: str, called: Called) -> None:
    assert why in one_message(called(*words), 2)
