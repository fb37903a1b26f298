# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a tool of the machine; a failure names the command and says what it said."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import BuildFailed, InfraFault

_TAIL_LINES = 12


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    """The last lines of ``text``, indented, for an error message."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-lines:])


def command(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """What the command wrote to its standard output; ``env`` is added to ours, messages are in English.

    :raise InfraFault: there is no such tool.
    :raise BuildFailed: it ended with another status than 0.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise missing_tool(words[0]) from error
    if done.returncode != 0:
        raise failed(words, done.returncode, done.stderr or done.stdout)
    return done.stdout


def tool_version(name: str) -> str:
    """The first line of what ``<name> --version`` says, for recipes.

    :raise InfraFault: there is no such tool.
    """
    return command([name, "--version"]).splitlines()[0]


def missing_tool(name: str) -> InfraFault:
    """The error for a tool that the machine lacks."""
    return InfraFault(f"the program {name!r} is needed and is not installed", hint="`apf doctor` lists all of them")


def failed(words: Sequence[str], status: int, output: str) -> BuildFailed:
    """The error for a command that failed, with the end of what it said."""
    shown = shlex.join(words)
    if len(shown) > 300:
        shown = shown[:300] + " ..."
    return BuildFailed(f"command failed with status {status}: {shown}\n{tail(output)}")
