# SPDX-License-Identifier: GPL-2.0-or-later
"""Ship the agent to a host once, then have it perform plans: written against base.Host only."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.contract.host_stalls import FILE, HostStalls
from harness.contract.plan import GuestKind, Plan
from harness.contract.service import AgentOptions, PlanRequest, PlanServed, line_of
from harness.contract.structure import structure, to_json
from harness.errors import ApfError, InfraFault, KernelFault
from harness.hosts.base import Conversation, Host

_COPY_S = 120.0
_MOST_PATIENCE = 10.0
"""A guest that hangs while it boots is told of in the end, however busy the machine."""
_AROUND_S = 420.0
"""What the agent may need around the guest's program: guest boot, swapping out, tracing, undo; seconds, under TCG."""

Step = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Payload:
    """The files that a host needs.  ``guest_kernel`` and ``guest_initrd`` are only for Linux guests.

    ``programs``: host programs by name, for plans that name one.
    """

    agent: Path
    probe: Path
    guest_kernel: Path | None = None
    guest_initrd: Path | None = None
    programs: Mapping[str, Path] = field(default_factory=dict)


class Performer:
    """Performs plans on one host.  Files are copied when they are first needed; one agent serves all plans.

    ``trace_dat``: captures have the trace as trace.dat, too.
    """

    def __init__(self, host: Host, payload: Payload, *, trace_dat: bool = False) -> None:
        self._host = host
        self._trace_dat = trace_dat
        self._payload = payload
        self._remote = host.facts.folder
        self._there: set[str] = set()
        self._agent: Conversation | None = None

    def perform(self, plan: Plan, out: Path, on_step: Step) -> None:
        """Perform ``plan``; its capture is below ``out`` afterwards, the host's console in ``out/host/console.txt``.

        ``on_step`` receives the name and the object of each progress line of the agent.  When anything is raised, the
        host is tainted, and what could be fetched is below ``out`` all the same.

        :raise KernelFault: the kernel under test died; no error of this machine hides that.
        :raise HostLost, DeadlineExpired: see base.Host.run.
        :raise OSError: what came back cannot be written here.
        :raise InfraFault: the agent failed for a reason of its own.
        """
        mark = self._host.console_mark()
        folder = f"{self._host.facts.captures or self._remote}/{plan.nonce:016x}"
        out.mkdir(parents=True, exist_ok=True)
        performed = False
        try:
            self._perform(plan, folder, out, on_step)
            performed = True
        except (ApfError, OSError, KeyboardInterrupt) as exc:
            self._host.taint(getattr(exc, "message", "") or str(exc) or "interrupted")
            self.close()
            if isinstance(exc, ApfError) and not (out / "end.json").exists():
                with contextlib.suppress(ApfError, OSError):
                    self._host.fetch(folder, out, deadline_s=30)
            if isinstance(exc, OSError):
                self._host.check()
            raise
        finally:
            try:
                self._keep_consoles(plan, mark, out)
            except OSError:
                if performed:  # otherwise what is on its way says more than that a disk is full
                    self._host.check()
                    raise

    def _keep_consoles(self, plan: Plan, mark: int, out: Path) -> None:
        text = self._host.console(mark)
        (out / "host").mkdir(exist_ok=True)
        if text:
            (out / "host" / "console.txt").write_bytes(text)
        guest = out / "guest" / "console.txt"
        told = self._host.guest_stalls(guest.read_bytes()) if guest.exists() else ()
        stalls = HostStalls(self._host.stalls(mark), told, nonce=plan.nonce)
        (out / FILE).write_text(to_json(stalls))

    def close(self) -> None:
        """End the agent; what it was doing is undone by itself."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()

    def _perform(self, plan: Plan, folder: str, out: Path, on_step: Step) -> None:
        answers: list[PlanServed] = []

        def on_line(line: str) -> bool:
            try:
                told = json.loads(line)
            except ValueError:
                return False  # a library's chatter; stdout of the agent is progress, the verdict never depends on it
            if isinstance(told, dict):
                if "served" in told:
                    answers.append(structure(PlanServed, told))
                    return True
                if "step" in told:
                    on_step(str(told["step"]), told)
            return False

        patience = min(_MOST_PATIENCE, self._host.slowness())
        request = line_of(PlanRequest(plan, replace(self._options(plan, folder), patience=patience)))
        if self._agent is None:
            self._agent = self._host.converse(self._serve_command())
        self._agent.ask(request, deadline_s=patience * (plan.deadline_s + _AROUND_S), on_line=on_line)
        # A capture with a journal that is not undone stays, for whoever reserves the machine next.
        ours = not self._host.facts.captures
        self._host.fetch(folder, out, deadline_s=_COPY_S, remove=ours and answers[-1].undone)
        ended = (out / "end.json").exists()
        try:
            self._host.check()
        except KernelFault as fault:
            if not (ended and fault.said and _logged(fault.said, out)):
                raise
            self._host.taint(fault.message)  # judged with the rest: of some kernels a warning is known
        if not ended:
            raise InfraFault(
                f"the agent ended with code {answers[-1].served} and left no end.json",
                hint=answers[-1].stderr.strip()[-2000:],
            )

    def _serve_command(self) -> list[str]:
        facts = self._host.facts
        agent = facts.agent or ("python3", self._ship(self._payload.agent, "agent.pyz"))
        scope = ["--scope", facts.scope] if facts.scope else []
        return [*agent, "serve", *scope, *(["--folder", facts.captures] if facts.captures else [])]

    def _options(self, plan: Plan, folder: str) -> AgentOptions:
        """What the agent is told; the files that it names are there afterwards."""
        facts = self._host.facts
        options = AgentOptions(
            folder, self._ship(self._payload.probe, "probe.elf"), facts.disk,
            no_disk=facts.no_disk, memory_mib=facts.memory_mib, trace_dat=self._trace_dat,
        )  # fmt: skip
        if plan.guest.kind is GuestKind.LINUX:
            if self._payload.guest_kernel is None or self._payload.guest_initrd is None:
                raise InfraFault("this host was given no kernel for Linux guests")
            kernel = self._ship(self._payload.guest_kernel, "guest-kernel")
            initrd = self._ship(self._payload.guest_initrd, "guest-initrd")
            return replace(options, guest_kernel=kernel, guest_initrd=initrd)
        if plan.guest.kind is GuestKind.HOST_PROGRAM:
            source = self._payload.programs.get(plan.guest.workload)
            if source is None:
                raise InfraFault(f"this host was given no program {plan.guest.workload!r}")
            return replace(options, program=self._ship(source, plan.guest.workload))
        return options

    def _ship(self, source: Path, name: str) -> str:
        target = f"{self._remote}/{name}"
        if name not in self._there:
            if not self._there:
                self._host.run(["mkdir", "-p", self._remote], deadline_s=60)
            self._host.put(source, target, deadline_s=_COPY_S)
            self._there.add(name)
        return target


def _logged(line: str, out: Path) -> bool:
    """Whether the capture has what the kernel said, so that the judge sees it (D28)."""
    log = out / "host" / "dmesg.txt"
    return log.exists() and line in log.read_text(errors="replace")
