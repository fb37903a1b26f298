# SPDX-License-Identifier: GPL-2.0-or-later
"""apf shell: look around in a virtual host."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from harness.cli import options
from harness.errors import UsageError
from harness.hosts.lab_file import lab_text
from harness.report.terminal import Screen
from harness.run.shell_host import ShellHost, lab_entry, start_shell_host
from harness.run.whole_file import write_whole

NAME = "virtual"

_HELP = """\
Boot a virtual host from a kernel and give a root shell in it, as scenarios find it: KVM, tracefs, QEMU, Python, an
empty disk for swap (/dev/vdb), and the agent and the probe guest in /run/apf-agent.  The host is gone when the shell
ends.
"""
_EPILOG = """\
examples:
  apf shell                        a shell in a host with debian-6.1
  apf shell --kernel noio-6.1      in one with another kernel (built first, if need be)
  apf shell --ssh                  print how to get in with ssh or scp, and keep the host until Ctrl-C
  apf shell --lab lab.toml         keep it as a machine of the lab: `apf run --host ssh:virtual --lab lab.toml`

Exit code: that of the shell (0 with --ssh); 1 when the kernel under test died; 3 when the host could not be had.
"""


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(subparsers, "shell", _HELP, epilog=_EPILOG)
    p.add_argument("-k", "--kernel", default=options.DEFAULT_KERNEL, metavar="K",
                   help="name from `apf kernels`, a bzImage, or a kernel tree "
                   f"(default {options.DEFAULT_KERNEL})")  # fmt: skip
    p.add_argument("--lab", type=Path, metavar="FILE",
                   help=f"write a file of lab machines that has it as {NAME!r}, and keep it until Ctrl-C")  # fmt: skip
    p.add_argument("--ssh", action="store_true", help="print how to get in, and keep the host until Ctrl-C")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Boot, then a shell or the command line for one.

    :raise UsageError: a shell was asked for and there is no terminal for it.
    """
    stay = args.ssh or args.lab is not None
    if not stay and not (os.isatty(0) and os.isatty(1)):
        raise UsageError("a shell needs a terminal", hint="`apf shell --ssh` prints how to get in from elsewhere")
    screen = Screen(sys.stdout)
    up = False
    try:
        with start_shell_host(args.kernel, screen, reboots=args.lab is not None) as shell:
            up = True
            screen.clear()
            if args.lab is not None:
                write_whole(args.lab, lab_text(NAME, lab_entry(shell, args.kernel)))
                screen.line(f"{args.lab} has it as {NAME!r}")
                _keep(shell, screen, shell.host.check_machine)  # that it panics is for its runs to say
            if stay:
                _keep(shell, screen, shell.host.check)
            return _interact(shell, screen)
    except KeyboardInterrupt:  # here, where the host is gone: see harness.run.ending
        if not (stay and up):
            raise
        return 0
    finally:
        screen.clear()


def _interact(shell: ShellHost, screen: Screen) -> int:
    screen.line(f"{shell.host.facts.release} ({shell.host.facts.accel}); here are {', '.join(shell.files)}")
    code = shell.host.interact(0, 1)
    shell.host.check()
    return max(0, code)


def _keep(shell: ShellHost, screen: Screen, check: Callable[[], None]) -> NoReturn:
    """Until Ctrl-C, which is what it is for; a host that dies before is told.  SIGUSR1 is its button for a reset."""
    pressed: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: pressed.append(number))
    known_hosts = shell.folder / "known_hosts"
    known_hosts.write_text(shell.host.access.known_hosts())
    screen.line(f"{shell.host.facts.release} ({shell.host.facts.accel}); Ctrl-C here ends it")
    screen.line(shlex.join(shell.host.access.command(known_hosts)))
    while True:
        check()
        if pressed:
            pressed.clear()
            shell.host.reset()
        time.sleep(0.5)
