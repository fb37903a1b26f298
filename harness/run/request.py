# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run is asked to do, and what it tells while it does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.artifacts.catalog import CatalogKernel, find_kernel
from harness.hosts import DEFAULT_KIND, HostChoice, find_host
from harness.hosts.lab_file import default_lab
from harness.results import AcceptedFinding, Row
from harness.run.fleet_client import FleetAddress


@dataclass(frozen=True, slots=True)
class Request:
    """``kernels``: names of the catalogue, or paths; ``guest_kernel``: what Linux guests boot, empty: that one.

    ``host_qemu``, ``guest_qemu``: what runs virtual hosts, and what runs in them, as in hosts.HostOrder.

    ``repeats``: 0 means as often as each scenario says.

    ``extra``: kernels of this run only (a patch to validate, a revision to bisect); they hide those of the catalogue.
    ``host``: as in hosts.find_host(), ``lab``: the file of lab machines, ``wait_s``: how long to wait for another run
    that has the machine.
    ``fleet``: whose machines do it; None: this one does.
    ``hosts``: how many virtual hosts at once at most; 0: as many as this machine has processors and memory for.
    ``wrong_kernel``, for kernels known to be wrong: a host that falls silent is believed at once, and one on which
    something went otherwise than predicted is not used again; nothing is drawn.
    ``trace_dat``: captures have the trace as trace.dat, too.
    """

    patterns: tuple[str, ...] = ()
    scenario_paths: tuple[Path, ...] = ()
    kernels: tuple[str, ...] = ("debian-6.1",)
    results: Path = Path("results")
    repeats: int = 0
    host: str = DEFAULT_KIND
    disk: str = ""
    lab: Path = field(default_factory=default_lab)
    wait_s: float = 0.0
    fleet: FleetAddress | None = None
    guest_kernel: str = ""
    host_qemu: str = ""
    guest_qemu: str = ""
    allow_unsupported: frozenset[str] = frozenset()
    accepted: tuple[AcceptedFinding, ...] = ()
    command: str = ""
    extra: tuple[CatalogKernel, ...] = ()
    hosts: int = 0
    wrong_kernel: bool = False
    trace_dat: bool = False

    @property
    def place(self) -> HostChoice:
        """Where it is done.  :raise UsageError: there is no such host."""
        return find_host(self.host, self.lab)

    @property
    def names(self) -> tuple[str, ...]:
        """What the kernels are called in results: those that were asked for, or that of a host that has its own.

        :raise UsageError: there is no such host.
        """
        place = self.place
        return self.kernels or (() if place.boots else (place.own().label,))

    def where(self, kernel: str) -> list[str]:
        """The options of a command line that does the same on one of the kernels, wherever it is called."""
        words = ["--kernel", self._anywhere(kernel)] if kernel in self.kernels else []
        if self.host != DEFAULT_KIND:
            words += ["--host", self.host]
            words += ["--lab", str(self.lab.absolute())] if self.place.kind.named else []
        return words

    def _anywhere(self, kernel: str) -> str:
        """A kernel as it was named; one that was named by a path, by a whole one."""
        path = Path(kernel).expanduser().absolute()
        return str(path) if path.exists() and self.kernel(kernel).path == path else kernel

    @property
    def guest_words(self) -> list[str]:
        """The options of a command line for the same guests and the same QEMUs."""
        guest = self._anywhere(self.guest_kernel) if self.guest_kernel else ""
        options = (("guest-kernel", guest), ("host-qemu", self.host_qemu), ("guest-qemu", self.guest_qemu))
        return [word for option, value in options if value for word in (f"--{option}", value)]

    def kernel(self, name: str) -> CatalogKernel:
        """The kernel that a name of ``kernels`` means.

        :raise CatalogError: there is none.
        """
        return next((entry for entry in self.extra if entry.id == name), None) or find_kernel(name)


def git_trees(request: Request) -> dict[str, Path]:
    """The kernels of a request that are built from a git tree, by name."""
    found = {}
    for name in request.kernels if request.place.boots else ():
        path = request.kernel(name).path
        if path is not None and (path / ".git").exists():
            found[name] = path
    return found


class Observer(Protocol):
    """Hears of a run; report.terminal.Screen is one."""

    def scope(self, prefix: str) -> None: ...

    def progress(self, what: str, done: float | None = None) -> None: ...

    def line(self, text: str = "") -> None: ...

    def verdict(self, row: Row) -> None: ...
