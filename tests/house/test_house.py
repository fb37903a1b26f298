# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of this repository, as tests: tools that must be silent, sizes, headers, and drawings that must be true."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import harness.errors
from harness.errors import ApfError
from tests.unit.waiting import HANG_S

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
MAX_LINES = 500
TOP = {
    "harness", "guest-images", "tests", "kernels", "docs", "Makefile", "tox.ini", "pyproject.toml", "README.md",
    "LICENSE", "CHANGELOG.md", ".ci", "reproducers",
}  # fmt: skip
COMMENTED = {".py", ".c", ".h", ".S", ".ld", ".sh", ".toml", ".config", ".ini"}


def tracked() -> list[Path]:
    """All files that git knows, or would know, relative to the top."""
    said = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    files = [Path(line) for line in said.splitlines()]
    return [f for f in files if (ROOT / f).is_file()]


FILES = tracked()
PYTHON = [f for f in FILES if f.suffix == ".py"]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
def test_tool_is_silent(command: list[str]) -> None:
    done = subprocess.run([TOOLS / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_of_tests_that_make_test_does_not_run_are_checked() -> None:
    """Those that boot machines or build kernels, and the programs that they run there."""
    listed = set(tomllib.loads(text_of(Path("pyproject.toml")))["tool"]["mypy"]["modules"])
    tests = [f for f in PYTHON if f.parts[0] == "tests" and f.parts[1] != "house"]
    meant = [f for f in tests if re.search(r"mark\.(host|build)\b", text_of(f)) or f.name.startswith("break_")]
    assert listed == {".".join(f.with_suffix("").parts) for f in meant}


def test_top_level_is_exactly_what_the_readme_says() -> None:
    top = {f.parts[0] for f in FILES}
    assert {name for name in top if not name.startswith(".") or name == ".ci"} == TOP


@functools.cache
def text_of(path: Path) -> str:
    """Read once, for all the rules about its words."""
    return (ROOT / path).read_text(errors="replace")


# Rules about each file: one test for all of them, which names every file that breaks the rule.
def test_module_size() -> None:
    long = [str(f) for f in PYTHON if len(text_of(f).splitlines()) > MAX_LINES]
    assert not long, "split it: one idea per module"


def has_header(path: Path) -> bool:
    """Not scenarios and the project file: LICENSE covers them, and their first line is their id."""
    if path.parts[:2] == ("tests", "scenarios") or path.name == "pyproject.toml":
        return False
    return path.suffix in COMMENTED or path.name == "Makefile"


def test_spdx_header() -> None:
    assert any(has_header(f) for f in FILES)
    without = [
        str(f) for f in FILES
        if has_header(f) and not any("SPDX-License-Identifier:" in line for line in text_of(f).splitlines()[:3])
    ]  # fmt: skip
    assert not without


def test_every_test_file_collects_tests() -> None:
    files = [f for f in PYTHON if f.name.startswith("test_")]
    assert files
    pattern = re.compile(r"^\s*(async )?def test_\w|^Test\w+ = \w+\.TestCase$", re.MULTILINE)
    assert [str(f) for f in files if not pattern.search(text_of(f))] == [], "no function here is called test_*"


def test_make_test_runs_something_of_every_file() -> None:
    """What is long is run by `make test-all` alone; no behaviour has only long tests."""
    marks, tests = re.compile(r"^@pytest\.mark\.long$", re.MULTILINE), re.compile(r"^def test_\w", re.MULTILINE)
    files = [f for f in PYTHON if f.name.startswith("test_")]
    assert any(marks.search(text_of(f)) for f in files)
    assert [str(f) for f in files if 0 < len(tests.findall(text_of(f))) <= len(marks.findall(text_of(f)))] == []


# Written so that this file does not contain what it looks for.
_PLACES = (r"/wo" + r"rk/(?:main|shared)", r"/opt/ap" + r"f-venv", r"/opt/k" + r"b\b", r"/ro" + r"ot/\.(?:cache|pyenv)")
FORBIDDEN = re.compile("|".join(_PLACES))


def test_no_path_of_somebodys_machine() -> None:
    """Captures are evidence and stay as they were taken."""
    files = [f for f in FILES if f.parts[:2] != ("tests", "data")]
    assert [f"{f}: {found.group()}" for f in files if (found := FORBIDDEN.search(text_of(f)))] == []


def test_avocado_imports_with_the_pinned_setuptools() -> None:
    """With setuptools 82 or newer there is no pkg_resources, and avocado 113 cannot be imported."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", "import avocado.core.job"], check=True, timeout=HANG_S)
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [p for p in pins if p.startswith("setuptools") and "<82" in p]


def test_avocado_finds_our_plugins() -> None:
    said = subprocess.run(
        [TOOLS / "avocado", "plugins"], capture_output=True, text=True, check=True, timeout=HANG_S
    ).stdout
    assert said.count("apf-scenario") >= 4


def test_the_drawn_tree_of_errors_is_the_real_one() -> None:
    drawn: list[tuple[int, str]] = []
    for line in (harness.errors.__doc__ or "").splitlines():
        match = re.match(r"^(\s*[│├└─ ]*)([A-Z]\w+)\b", line)
        if match and (match.group(2) == "ApfError" or "─" in match.group(1)):
            drawn.append((len(match.group(1)), match.group(2)))
    parents: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for depth, name in drawn:
        while stack and stack[-1][0] >= depth:
            stack.pop()
        parents[name] = stack[-1][1] if stack else "Exception"
        stack.append((depth, name))

    def walk(cls: type[ApfError]) -> dict[str, str]:
        real = {cls.__name__: cls.__mro__[1].__name__}
        for child in cls.__subclasses__():
            if child.__module__ == "harness.errors":
                real |= walk(child)
        return real

    assert parents == walk(ApfError)


def test_exit_codes_are_as_drawn() -> None:
    for line in (harness.errors.__doc__ or "").splitlines():
        match = re.search(r"([A-Z]\w+)\s.*exit (\d)$", line)
        if match:
            assert getattr(harness.errors, match.group(1)).exit_code == int(match.group(2)), line


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())
    # Without the flags of a make that runs these tests: it would add lines of its own.
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    said = subprocess.run(
        ["make", "help"], cwd=ROOT, env=clean, capture_output=True, text=True, check=True, timeout=HANG_S
    ).stdout
    assert {line.split()[1] for line in said.splitlines()} == phony
    targets = set(re.findall(r"^([a-z0-9-]+):", text, re.MULTILINE))
    assert targets == phony


SCRIPTS = [f for f in FILES if f.suffix in ("", ".sh") and (ROOT / f).read_bytes()[:2] == b"#!"]


@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_shell_scripts_parse(path: Path) -> None:
    subprocess.run(["sh", "-n", ROOT / path], check=True, timeout=HANG_S)
