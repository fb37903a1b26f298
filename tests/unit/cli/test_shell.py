# SPDX-License-Identifier: GPL-2.0-or-later
"""apf shell: its arguments always; a real session on a pseudo-terminal with ``-m host``."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import parser
from harness.hosts.virtual.virtual_host import Keys, SshAccess
from tests.unit.cli.command import apf, one_message

BOOT_S = 240.0


def test_arguments() -> None:
    args = parser(("shell",)).parse_args(["shell", "--kernel", "noio-6.1", "--ssh"])
    assert (args.kernel, args.ssh) == ("noio-6.1", True)
    assert parser(("shell",)).parse_args(["shell"]).kernel == "debian-6.1"


def test_a_shell_needs_a_terminal(tmp_path: Path) -> None:
    assert "--ssh" in one_message(apf("shell", cwd=tmp_path), 2)


def test_an_unknown_kernel_is_bad_input(tmp_path: Path) -> None:
    assert "no-such-kernel" in one_message(apf("shell", "--ssh", "--kernel", "no-such-kernel", cwd=tmp_path), 2)


def test_the_command_line_pins_both_keys(tmp_path: Path) -> None:
    access = SshAccess(40123, Keys(tmp_path / "id", "ssh-ed25519 AAAA"))
    assert access.known_hosts() == "[127.0.0.1]:40123 ssh-ed25519 AAAA\n"
    words = access.command(tmp_path / "known")
    assert words[0] == "ssh" and words[-1] == "root@127.0.0.1"
    assert {"StrictHostKeyChecking=yes", f"UserKnownHostsFile={tmp_path / 'known'}", "IdentitiesOnly=yes"} <= set(words)
    assert words[words.index("-p") + 1] == "40123" and words[words.index("-i") + 1] == str(tmp_path / "id")


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, *words: str, cwd: Path) -> None:
        self.seen = ""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *words], stdin=slave, stdout=slave, stderr=slave, cwd=cwd,
            env={**os.environ, "TERM": "xterm", "APF_ACCEL": "tcg"}, start_new_session=True,
        )  # fmt: skip
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        give_up = time.monotonic() + seconds
        while (found := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < give_up, f"no {pattern!r} in:\n{self.seen[-3000:]}"
            if select.select([self._master], [], [], 0.5)[0]:
                try:
                    self.seen += os.read(self._master, 65536).decode(errors="replace")
                except OSError:  # EIO: the command has closed its side
                    assert re.search(pattern, self.seen), self.seen[-3000:]
        return found

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        os.close(self._master)


def children(pid: int) -> list[str]:
    """The command lines of a process's children."""
    said = subprocess.run(["ps", "-o", "args=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return said.splitlines()


@pytest.mark.host
def test_a_session_on_a_terminal(tmp_path: Path) -> None:
    terminal = Terminal("shell", cwd=tmp_path)
    try:
        terminal.wait_for(r"here are /run/apf-agent/agent\.pyz", BOOT_S)
        assert any("qemu" in line for line in children(terminal.process.pid))
        terminal.wait_for(r"\n[^\n]*# ", 60)  # the prompt: what is typed before the terminal is raw is dropped
        terminal.type("echo sum-$((40 + 2)) on $(uname -r); tty; ls /run/apf-agent\n")
        terminal.wait_for(r"sum-42 on 6\.1\.", 60)
        terminal.wait_for(r"/dev/pts/\d+", 60)
        terminal.wait_for(r"probe\.elf", 60)
        terminal.type("sleep 100\n")
        time.sleep(1)
        terminal.type("\x03")  # Ctrl-C is for what runs in the shell
        terminal.wait_for(r"\^C", 60)
        time.sleep(1)  # what is typed in the same moment may be thrown away with what was interrupted
        terminal.type("echo still-$((1 + 1))\n")
        terminal.wait_for(r"still-2", 60)
        terminal.type("exit 7\n")
        assert terminal.process.wait(60) == 7
    finally:
        terminal.end()


@pytest.mark.host
def test_a_host_that_is_kept_for_ssh(tmp_path: Path) -> None:
    terminal = Terminal("shell", "--ssh", cwd=tmp_path)
    try:
        line = terminal.wait_for(r"ssh -p \d+ [^\r\n]*root@127\.0\.0\.1", BOOT_S).group()
        words = shlex.split(line)
        known = Path(next(w.partition("=")[2] for w in words if w.startswith("UserKnownHostsFile=")))
        assert known.read_text().startswith(f"[127.0.0.1]:{words[2]} ssh-")
        assert Path(words[4]).is_file()
        os.kill(terminal.process.pid, signal.SIGINT)
        assert terminal.process.wait(60) == 0
        assert not known.exists()
    finally:
        terminal.end()
