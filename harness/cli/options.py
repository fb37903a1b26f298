# SPDX-License-Identifier: GPL-2.0-or-later
"""The options that several commands have, each written once, and the Request that follows from them."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from harness.artifacts.catalog import CatalogKernel, find_kernel
from harness.artifacts.debian.offered_kernels import LATEST
from harness.artifacts.images.packaged_qemu import DEFAULT, OWN, SUITES, check_suite, check_word
from harness.cli import COMMANDS
from harness.errors import UsageError
from harness.hosts import DEFAULT_KIND, HostChoice, find_host, host_words
from harness.hosts.lab_file import default_lab
from harness.report.annotations import github_commands
from harness.results import RunResult
from harness.run.accepted_findings import read_accepted_findings
from harness.run.fleet_client import FleetAddress
from harness.run.request import Request
from harness.run.scenario_sources import default_scenarios, read_scenario_files
from harness.scenario.load import refused_error

DEFAULT_KERNEL = "debian-6.1"
SCENARIO_HELP = 'id ("S23"), glob ("S2*"), tag ("tag:smoke") or a scenario file; default: all'

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def command(
    subparsers: Subparsers, name: str, description: str, parents: Sequence[argparse.ArgumentParser] = (),
    epilog: str = "",
) -> argparse.ArgumentParser:  # fmt: skip
    """A sub-command whose text is printed as it is written."""
    return subparsers.add_parser(
        name, help=COMMANDS[name], description=description, epilog=epilog, parents=list(parents),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def scenario_files() -> argparse.ArgumentParser:
    """Where scenarios are read from."""
    p = argparse.ArgumentParser(add_help=False)
    group = p.add_argument_group("which scenarios there are")
    group.add_argument("--scenarios", action="append", default=[], type=Path, metavar="PATH",
                       help="scenario file or folder; may be repeated (default: tests/scenarios)")  # fmt: skip
    return p


def running() -> argparse.ArgumentParser:
    """How and where scenarios are performed, and where their evidence goes."""
    p = argparse.ArgumentParser(add_help=False)
    group = p.add_argument_group("how scenarios are run")
    group.add_argument("--results", type=Path, default=Path("results"), metavar="DIR",
                       help="the run gets a folder of its own in there (default: results)")  # fmt: skip
    group.add_argument("--allow-unsupported", action="append", default=[], metavar="ID",
                       help="this scenario is green although this machine cannot do it; may be repeated")  # fmt: skip
    group.add_argument("--accept-findings", type=Path, metavar="FILE",
                       help="findings about shipped kernels that are green where they are reproduced"
                       " (docs/reading-verdicts.md)")  # fmt: skip
    _add_places(group)
    _add_fleet(group)
    group.add_argument("--hosts", type=positive, default=0, metavar="N",
                       help="virtual hosts at once (default: as processors and memory allow)")  # fmt: skip
    group.add_argument("--trace-dat", action="store_true",
                       help="keep each trace as trace.dat, too: for trace-cmd and KernelShark")  # fmt: skip
    group.add_argument("--guest-kernel", default="", metavar="K",
                       help="kernel of Linux guests, named as for --kernel (default: the one under test)")  # fmt: skip
    releases = ", ".join(SUITES)
    group.add_argument("--host-qemu", default="", metavar="Q",
                       help=f"QEMU that runs virtual hosts: that of a Debian release ({releases}), {OWN} for this"
                       f" machine's, or a path (default: {DEFAULT}; where it cannot be had, {OWN})")  # fmt: skip
    group.add_argument("--guest-qemu", default="", metavar="RELEASE",
                       help="QEMU in virtual hosts: that of a Debian release (default: bookworm)")  # fmt: skip
    return p


def _add_fleet(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--on", default="", metavar="ADDRESS",
                       help="perform it on the workers of a Dask scheduler: tls://HOST:PORT (docs/lab.md)")  # fmt: skip
    for name, what in (("ca", "who signs the fleet's certificates"), ("cert", "our certificate"), ("key", "our key")):
        group.add_argument(f"--tls-{name}", type=Path, metavar="FILE", help=f"--on tls://: {what} (PEM)")


def places() -> argparse.ArgumentParser:
    """Where something is done."""
    p = argparse.ArgumentParser(add_help=False)
    _add_places(p.add_argument_group("which host"))
    return p


def _add_places(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default=DEFAULT_KIND, metavar="H",
                       help="; ".join(f"{word}: {about}" for word, about in host_words().items())
                       + f" (default {DEFAULT_KIND})")  # fmt: skip
    group.add_argument("--lab", type=Path, metavar="FILE",
                       help="--host ssh:NAME, labgrid:PLACE: the file of machines (docs/lab.md;"
                       f" default: {str(default_lab()).replace('%', '%%')})")  # fmt: skip
    group.add_argument("--wait", type=positive, default=0, metavar="SECONDS",
                       help="how long to wait for another run that has the machine (default: not)")  # fmt: skip
    group.add_argument("--disk", default="", metavar="DEV",
                       help="--host local, ssh: block device of the machine that may be overwritten"
                       " (default: a loop device)")  # fmt: skip


def meant(args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Patterns, and the files and folders in which to look for what they name; a file that is itself named is meant
    with all of its scenarios.

    :raise UsageError: a file that is named beside a pattern holds no scenario.
    """
    given = tuple(getattr(args, "scenario", ()))
    files = tuple(Path(name) for name in given if name.endswith(".toml"))
    patterns = tuple(name for name in given if not name.endswith(".toml"))
    folders = tuple(args.scenarios)
    if not files:
        return patterns, folders
    found = read_scenario_files(files)
    if found.refused and patterns:
        raise refused_error(found.refused)
    named = () if found.refused else tuple(s.id for s in found.scenarios)
    return (*patterns, *named), (*(folders or (default_scenarios(),)), *files) if patterns else files


def scenario_argument(p: argparse.ArgumentParser, nargs: str = "*") -> None:
    """The scenarios that are meant."""
    p.add_argument("scenario", nargs=nargs, help=SCENARIO_HELP if nargs == "*" else SCENARIO_HELP.partition(";")[0])


def annotate(result: RunResult, tell: Callable[[str], None]) -> None:
    """In a job of GitHub Actions: what is not green, as annotations of the scenarios' files."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in github_commands(result):
            tell(line)


def positive(text: str) -> int:
    """An argparse type: a number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 1 <= number <= 1_000_000:
        raise argparse.ArgumentTypeError("must be between 1 and 1000000")
    return number


def place_of(args: argparse.Namespace) -> HostChoice:
    """Where it is to be done.  :raise UsageError: there is no such host."""
    return find_host(args.host, lab_of(args))


def lab_of(args: argparse.Namespace) -> Path:
    """The file of lab machines that is meant."""
    given: Path | None = args.lab
    return given if given is not None else default_lab()


def check_place(args: argparse.Namespace) -> None:
    """Refuse what says nothing about the host that is meant.

    :raise UsageError: there is no such host, or an option of others is given.
    """
    place = place_of(args)
    if args.disk and place.boots:
        raise UsageError(f"--disk is for --host local: a {args.host} host has a disk of its own")
    if args.wait and place.boots:
        raise UsageError(f"--wait is for machines that others may have: a {args.host} host is the run's own")
    if args.lab is not None and not place.kind.named:
        raise UsageError(
            f"--lab is for machines of the lab: a {args.host} host is none", hint="--host ssh:NAME or labgrid:PLACE"
        )


def _check_many(args: argparse.Namespace) -> None:
    """The same of what is about several hosts.  :raise UsageError: an option that would change nothing."""
    place = place_of(args)
    tls = [name for name in ("ca", "cert", "key") if getattr(args, f"tls_{name}") is not None]
    if tls and not args.on:
        raise UsageError(f"{', '.join(f'--tls-{name}' for name in tls)}: only --on speaks TLS")
    if args.hosts and not place.boots:
        raise UsageError(f"--hosts is for virtual hosts: {args.host} is one machine")
    if args.hosts and args.on:
        raise UsageError("--hosts is for this machine: with --on each worker has one host at a time")
    if args.lab is not None and args.on:
        raise UsageError(f"--lab is a file of this machine: with --on each worker looks for {args.host} in its own")


def kernels_of(args: argparse.Namespace, named: Sequence[str]) -> tuple[str, ...]:
    """The kernels that are meant: those that are named, else the default; none where the host has its own.

    :raise UsageError: there is no such host.
    """
    kernels = tuple(dict.fromkeys(named))
    return kernels or ((DEFAULT_KERNEL,) if place_of(args).boots else ())


def request_of(
    args: argparse.Namespace, kernels: Sequence[str], *, repeats: int = 0, extra: Sequence[CatalogKernel] = ()
) -> Request:
    """What the command line asks a run to do.

    :raise UsageError: the options contradict each other.
    """
    check_place(args)
    _check_many(args)
    fleet = FleetAddress(args.on, args.tls_ca, args.tls_cert, args.tls_key) if args.on else None
    if fleet is not None:
        fleet.check()
        if extra:
            raise UsageError("--on is for kernels that the workers can find by their names")
    if (args.host_qemu or args.guest_qemu) and not place_of(args).boots:
        raise UsageError(f"--host-qemu and --guest-qemu are for virtual hosts: a {args.host} host has its own QEMU")
    if args.guest_qemu:
        check_suite(args.guest_qemu)
    check_word(args.host_qemu)
    patterns, paths = meant(args)
    return Request(
        patterns=patterns,
        scenario_paths=paths,
        kernels=tuple(find_kernel(name).id if name == LATEST else name for name in kernels),
        results=args.results,
        repeats=repeats,
        host=args.host,
        disk=args.disk,
        lab=lab_of(args),
        wait_s=float(args.wait),
        fleet=fleet,
        allow_unsupported=frozenset(args.allow_unsupported),
        accepted=read_accepted_findings(args.accept_findings) if args.accept_findings else (),
        command=shlex.join(["apf", *sys.argv[1:]]),
        extra=tuple(extra),
        hosts=args.hosts,
        trace_dat=args.trace_dat,
        host_qemu=args.host_qemu,
        guest_qemu=args.guest_qemu,
        guest_kernel=find_kernel(args.guest_kernel).id if args.guest_kernel == LATEST else args.guest_kernel,
    )
