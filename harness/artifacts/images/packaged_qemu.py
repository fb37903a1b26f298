# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's QEMU, and those of Debian's releases, each with the libraries that it was built for."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from harness.artifacts.command import command
from harness.artifacts.debian.deb import extract
from harness.artifacts.debian.packages import Package, Packages, identities, with_packages
from harness.artifacts.store import Recipe, Store
from harness.errors import BuildFailed, InfraFault, Unsupported, UsageError
from harness.progress import Progress, silent

SUITES = ("bookworm", "trixie", "forky", "sid")
"""Debian's releases whose QEMU can be asked for: 7.2, 10.0, and 11.1 twice in November 2026."""
DEFAULT = "forky"
"""Whose QEMU runs virtual hosts where nothing else is asked for (docs/adr/0023)."""
OWN = "own"
"""The word for the machine's own."""
PROGRAM = "qemu-system-x86_64"
_PACKAGES = ("qemu-system-x86", "seabios")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_KEPT = (f"usr/bin/{PROGRAM}", f"{_LIBRARIES}/", "usr/lib64/", "usr/share/qemu/", "usr/share/seabios/")
_LAUNCHER = f"""\
#!/bin/sh
# Started by its own dynamic loader: the machine's C library may be another.
here=$(dirname "$0")/root
QEMU_MODULE_DIR=$here/{_LIBRARIES}/qemu
export QEMU_MODULE_DIR
exec "$here/{_LIBRARIES}/ld-linux-x86-64.so.2" --library-path "$here/{_LIBRARIES}" "$here/usr/bin/{PROGRAM}" \\
    -L "$here/usr/share/qemu" -L "$here/usr/share/seabios" "$@"
"""


@dataclass(frozen=True, slots=True)
class QemuProgram:
    """A QEMU on this machine; ``version`` as it tells itself; ``instead``: why it is not the one that was meant."""

    path: Path
    version: str
    instead: str = ""

    @property
    def number(self) -> str:
        """Of the version, as "11.1.2"; empty: it tells none."""
        found = re.search(r"version ([0-9.]+)", self.version)
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.version}{f' ({self.instead})' if self.instead else ''}"


def check_suite(suite: str) -> None:
    """:raise UsageError: no Debian release whose QEMU can be asked for."""
    if suite not in SUITES:
        raise UsageError(f"there is no QEMU {suite!r}", hint=f"Debian's releases are {', '.join(SUITES)}")


def check_word(wanted: str) -> None:
    """:raise UsageError: nothing that find_qemu() takes; whether a path leads to a program is not looked at."""
    if wanted not in ("", OWN) and "/" not in wanted:
        check_suite(wanted)


def find_qemu(store: Store, wanted: str, progress: Progress = silent) -> QemuProgram:
    """The QEMU that runs virtual hosts.

    :param wanted: a Debian release, made when the store has none; a path: that program; OWN: the machine's; empty: that
        of DEFAULT, or the machine's where it cannot be had, and then why
    :raise UsageError: there is no such program or release.
    :raise InfraFault: the machine has none, or it cannot be run.
    :raise Unsupported: the machine's mirrors do not offer the release.
    """
    check_word(wanted)
    if not wanted:
        try:
            return _of_release(store, DEFAULT, progress)
        except (InfraFault, Unsupported) as exc:
            own = find_qemu(store, OWN)
            return replace(own, instead=f"the machine's own, not {DEFAULT}'s: {exc.message.partition(chr(10))[0]}")
    if wanted == OWN:
        path = machine_qemu()
    elif "/" in wanted:
        path = Path(wanted).expanduser().absolute()
        if not path.is_file():
            raise UsageError(f"there is no QEMU at {path}")
    else:
        return _of_release(store, wanted, progress)
    return QemuProgram(path, version_of(path))


def _of_release(store: Store, suite: str, progress: Progress) -> QemuProgram:
    path = with_packages(store, suite, progress, lambda packages: _packaged(store, packages, progress))
    return QemuProgram(path, version_of(path))


def machine_qemu() -> Path:
    """:raise InfraFault: there is no QEMU on this machine."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise InfraFault(f"{PROGRAM} is not in PATH", hint="make setup installs it (package qemu-system-x86)")
    return Path(found)


def version_of(path: Path) -> str:
    """What a QEMU calls itself: "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)".

    :raise InfraFault: it cannot be run.
    """
    try:
        return command([path, "--version"]).partition("\n")[0]
    except OSError as exc:
        raise InfraFault(f"{path} cannot be run: {exc.strerror}") from exc
    except BuildFailed as exc:
        raise InfraFault(f"{path} cannot be run: {exc.message}") from exc


def in_store(root: Path) -> dict[str, str]:
    """The releases whose QEMU is in the store at ``root``, with the package's version; nothing is made or asked."""
    found = {}
    for path in sorted((root / "store").glob("qemu-*/recipe.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            inputs = json.loads(path.read_text())["inputs"]
            found[inputs["suite"]] = dict(entry[:2] for entry in inputs["packages"])[_PACKAGES[0]]
    return {suite: found[suite] for suite in SUITES if suite in found}


def _recipe(suite: str, chosen: tuple[Package, ...]) -> Recipe:
    return Recipe("qemu", {"suite": suite, "packages": identities(chosen), "launcher": _LAUNCHER, "kept": _KEPT})


def _packaged(store: Store, packages: Packages, progress: Progress) -> Path:
    chosen = packages.resolve(_PACKAGES)

    def build(folder: Path) -> None:
        debs = packages.download(chosen)
        (folder / "root").mkdir()
        for number, deb in enumerate(debs):
            progress(f"unpacking QEMU of {packages.suite}", number / len(debs))
            extract(deb, folder / "root", lambda path: path.startswith(_KEPT))
        launcher = folder / PROGRAM
        launcher.write_text(_LAUNCHER)
        launcher.chmod(0o755)

    return store.get(_recipe(packages.suite, chosen), build) / PROGRAM
