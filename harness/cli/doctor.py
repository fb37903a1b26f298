# SPDX-License-Identifier: GPL-2.0-or-later
"""apf doctor: what this machine, or another host, can do, and what it would need."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.artifacts.debian.apt_sources import machine_sources, sources_for
from harness.artifacts.images.packaged_qemu import DEFAULT, SUITES, in_store
from harness.artifacts.needed_tools import needs
from harness.artifacts.store import default_root
from harness.cli import options
from harness.errors import Unsupported, UsageError
from harness.hosts.accel import rule_out
from harness.report.printable import printable
from harness.report.terminal import Screen
from harness.run.host_examination import Check, Examination, examine_host
from harness.run.request import Request

_HELP = """\
What this machine can do, and what it would need; changes nothing.  Exit code 3 when scenarios cannot run here.

With --host local or ssh:NAME: what that machine can do as a host.  It is reserved for a moment, the agent looks around,
a small guest runs under its KVM, and everything is as before; then, for each scenario, what it could not have there
and the command that provides it.
"""
_EPILOG = """\
examples:
  apf doctor
  apf doctor --host ssh:bigbox
  apf doctor --host ssh:bigbox --json tag:swap
"""
_GIB = 1 << 30
_FULL_SET_GIB = 6


def add(subparsers: options.Subparsers) -> None:
    """Add this command."""
    p = options.command(
        subparsers, "doctor", _HELP,
        [options.scenario_files(), options.places()], _EPILOG,
    )  # fmt: skip
    options.scenario_argument(p)
    p.add_argument("--json", action="store_true", help="for machines (docs/lab.md)")
    p.add_argument("--no-trial", action="store_true", help="--host local, ssh: start no guest")
    p.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    """Print the checks and a conclusion."""
    options.check_place(args)
    if options.place_of(args).boots:
        if args.scenario or args.scenarios or args.no_trial:
            raise UsageError(
                "scenarios and --no-trial are for a machine that is to be the host: a virtual host is what it boots",
                hint="--host local, ssh:NAME",
            )
        found = Examination(args.host, tuple(examine()))
        lines = [*_checks(found.checks), "", *_conclusion(found.checks)]
    else:
        screen = Screen(sys.stderr)
        patterns, paths = options.meant(args)
        request = Request(
            patterns=patterns, scenario_paths=paths, host=args.host, kernels=(),
            disk=args.disk, lab=options.lab_of(args), wait_s=float(args.wait),
        )  # fmt: skip
        try:
            found = examine_host(request, screen, trial=not args.no_trial)
        finally:
            screen.clear()
        lines = [*_checks(found.checks), "", *_scenarios(found)]
    for line in [found.to_json()] if args.json else lines:
        print(line if args.json else printable(line))
    return 0 if found.ok else 3


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    marks = {"run": "MISSING", "build": "MISSING", "some": "some   ", "speed": "slower "}
    for c in checks:
        mark = "ok     " if c.ok else marks[c.need]
        yield f"{mark}  {c.what:<22} {c.found}{'' if c.ok or not c.remedy else f'  ->  {c.remedy}'}"


def _conclusion(checks: Sequence[Check]) -> Iterator[str]:
    bad = {c.need for c in checks if not c.ok}
    yield f"scenarios on packaged kernels: {'no' if 'run' in bad else 'yes'}"
    yield f"kernels built from source:     {'no' if bad & {'run', 'build'} else 'yes'}"
    yield f"virtual host runs under:       {'TCG (emulated SVM)' if 'speed' in bad else 'KVM, if it passes its test'}"


def _scenarios(found: Examination) -> Iterator[str]:
    """How many scenarios can be had there, and for the others why not; those with one reason together."""
    possible = [s for s in found.scenarios if not s.lacks]
    yield f"scenarios that can be performed on {found.host}: {len(possible)} of {len(found.scenarios)}"
    reasons: dict[tuple[str, str], list[str]] = {}
    for scenario in found.scenarios:
        for lack in scenario.lacks:
            reasons.setdefault(lack, []).append(scenario.scenario)
        if scenario.instead:
            reasons.setdefault((scenario.instead, "modprobe nbd"), []).append(scenario.scenario)
    for (what, remedy), names in reasons.items():
        yield f"  {what}{f'  ->  {remedy}' if remedy else ''}"
        yield from textwrap.wrap(", ".join(names), 110, initial_indent="    ", subsequent_indent="    ")


def examine() -> Iterator[Check]:
    """All checks, in the order in which they are printed."""
    for need in needs():
        where = need.found()
        found = where or "not found"
        if where and need.probe.startswith("qemu"):
            found = f"{where}: {_first_line([where, '--version'])}"
        use = {"build": "build", "read": "some"}.get(need.use, "run")
        yield Check(
            need.probe if need.is_command else need.package,
            bool(where),
            found,
            use,
            f"apt-get install {need.package} (or make setup)",
        )
    yield _host_qemu()
    machine = os.uname().machine
    yield Check("processor", machine == "x86_64", f"{machine}, {os.cpu_count()} CPUs", "run", "an x86-64 machine")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Check("memory", memory > 3 * _GIB, f"{memory / _GIB:.1f} GiB", "run", "3 GiB or more")
    yield _disk(default_root())
    reason = rule_out()
    yield Check("nested KVM", not reason, reason or "nothing speaks against it", "speed", "not needed: TCG does it")


def _host_qemu() -> Check:
    """Which QEMU runs virtual hosts, and the others that can be asked for; nothing is fetched, and no mirror asked."""
    what, there, lacks = "QEMU of virtual hosts", in_store(default_root()), ""
    others = ", ".join(f"{suite} ({there[suite]})" if suite in there else suite for suite in SUITES if suite != DEFAULT)
    if DEFAULT not in there:
        try:
            sources_for(DEFAULT, machine_sources())
        except Unsupported as exc:
            lacks = f"{exc.message}: the machine's own runs them"
    found = lacks or f"{DEFAULT} ({there.get(DEFAULT, 'fetched when it is first needed, or else the own one')})"
    remedy = "Debian's main archive in /etc/apt/sources.list.d"
    return Check(what, not lacks, f"{found}; --host-qemu, --guest-qemu: {others}", "some", remedy)


def _disk(root: Path) -> Check:
    there = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(there).free / _GIB
    writable = os.access(there, os.W_OK)
    found = f"{root}, {free:.1f} GiB free" if writable else f"{there} cannot be written"
    return Check(
        "cache folder", writable and free > 1, found, "run",
        f"room for 1 GiB, or {_FULL_SET_GIB} GiB with kernels built from source; XDG_CACHE_HOME chooses another place",
    )  # fmt: skip


def _first_line(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"cannot be run: {exc}"
    return done.stdout.partition("\n")[0]
