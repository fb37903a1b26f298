# SPDX-License-Identifier: GPL-2.0-or-later
"""Ship the agent to a host once, then have it perform plans: written against base.Host only."""

from __future__ import annotations

import contextlib
import json
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ApfError, InfraFault, KernelFault
from harness.hosts.base import Host
from harness.scenario.plan import GuestKind, Plan, to_json

REMOTE = "/run/apf-agent"
_COPY_S = 120.0
_AROUND_S = 420.0
"""What the agent may need around the guest's program: guest boot, swapping out, tracing, undo; seconds, under TCG."""

Step = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Payload:
    """The files that a host needs.  ``guest_kernel`` and ``guest_initrd`` are only for Linux guests."""

    agent: Path
    probe: Path
    guest_kernel: Path | None = None
    guest_initrd: Path | None = None


class Performer:
    """Performs plans on one host.  Files are copied when they are first needed."""

    def __init__(self, host: Host, payload: Payload, remote: str = REMOTE) -> None:
        self._host = host
        self._payload = payload
        self._remote = remote
        self._there: set[str] = set()

    def perform(self, plan: Plan, out: Path, on_step: Step) -> None:
        """Perform ``plan``; its capture is below ``out`` afterwards, the host's console in ``out/host/console.txt``.

        ``on_step`` receives the name and the object of each progress line of the agent.  When anything is raised, the
        host is tainted, and what could be fetched is below ``out`` all the same.

        :raise KernelFault, HostLost, DeadlineExpired: see base.Host.run.
        :raise InfraFault: the agent failed for a reason of its own.
        """
        mark = self._host.console_mark()
        folder = f"{self._remote}/{plan.nonce:016x}"
        out.mkdir(parents=True, exist_ok=True)
        try:
            self._perform(plan, folder, out, on_step)
        except KernelFault as exc:
            self._host.taint(exc.message)
            raise
        except (ApfError, KeyboardInterrupt) as exc:
            self._host.taint(str(exc) or "interrupted")
            if isinstance(exc, ApfError):
                with contextlib.suppress(ApfError):
                    self._host.fetch(folder, out, deadline_s=30)
            raise
        finally:
            text = self._host.console(mark)
            if text:
                (out / "host").mkdir(exist_ok=True)
                (out / "host" / "console.txt").write_bytes(text)

    def _perform(self, plan: Plan, folder: str, out: Path, on_step: Step) -> None:
        argv = [
            "python3", self._ship(self._payload.agent, "agent.pyz"), "perform",
            "--plan", f"{folder}.json",
            "--out", folder,
            "--probe", self._ship(self._payload.probe, "probe.elf"),
            "--disk", self._host.facts.disk,
        ]  # fmt: skip
        if plan.guest.kind is GuestKind.LINUX:
            if self._payload.guest_kernel is None or self._payload.guest_initrd is None:
                raise InfraFault("this host was given no kernel for Linux guests")
            argv += ["--guest-kernel", self._ship(self._payload.guest_kernel, "guest-kernel")]
            argv += ["--guest-initrd", self._ship(self._payload.guest_initrd, "guest-initrd")]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as text:
            text.write(to_json(plan))
            text.flush()
            self._host.put(Path(text.name), f"{folder}.json", deadline_s=_COPY_S)

        def on_line(line: str) -> None:
            try:
                told = json.loads(line)
            except ValueError:
                return  # a library's chatter; stdout of the agent is progress, the verdict never depends on it
            if isinstance(told, dict):
                on_step(str(told.get("step", "")), told)

        done = self._host.run(argv, deadline_s=plan.deadline_s + _AROUND_S, on_line=on_line)
        self._host.fetch(folder, out, deadline_s=_COPY_S)
        self._host.check()
        if not (out / "end.json").exists():
            raise InfraFault(
                f"the agent ended with code {done.code} and left no end.json: {shlex.join(argv)}",
                hint=done.stderr.decode(errors="replace").strip()[-2000:],
            )
        self._host.run(["rm", "-rf", folder, f"{folder}.json"], deadline_s=60)

    def _ship(self, source: Path, name: str) -> str:
        target = f"{self._remote}/{name}"
        if name not in self._there:
            if not self._there:
                self._host.run(["mkdir", "-p", self._remote], deadline_s=60)
            self._host.put(source, target, deadline_s=_COPY_S)
            self._there.add(name)
        return target
