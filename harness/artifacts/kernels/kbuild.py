# SPDX-License-Identifier: GPL-2.0-or-later
"""Configure and build one kernel tree {src, obj}; the same inputs at the same place give the same bytes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts.command import command, missing_tool, tail
from harness.artifacts.kernels import kconfig
from harness.artifacts.needed_tools import build_commands
from harness.errors import BuildFailed
from harness.progress import Progress

TOOLS = build_commands()
_REPRODUCIBLE = ("KBUILD_BUILD_USER=apf", "KBUILD_BUILD_HOST=apf", "KBUILD_BUILD_TIMESTAMP=1970-01-01")
_OBJECT = re.compile(r"^  (?:CC|AS) +(?P<name>\S+\.o)$")
_COMPLAINT = re.compile(r"\b(?:error|warning|undefined reference)\b|\*\*\*", re.IGNORECASE)
_TELL_EVERY = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a build came to: how many objects were compiled, and the compiler's warnings."""

    objects: int
    warnings: tuple[str, ...]


def check_tools() -> None:
    """:raise InfraFault: a program is missing without which no kernel can be built."""
    for name in TOOLS:
        if shutil.which(name) is None:
            raise missing_tool(name)


def configure(tree: Path, fragments: Sequence[Path], *, strict: bool, progress: Progress) -> None:
    """tinyconfig, the fragments over it, and proof that each wish was granted.

    In a source of the series that the fragments were written for a wish that is not granted is an error, and with
    ``strict`` also a symbol that the source does not have at all.  Other series rename and drop symbols, and have fewer
    choices on some architectures: there what was not granted is told.

    :raise BuildFailed: a wish was not granted, or KVM is not in it.  Modules are not built: what is wanted must be "y".
    """
    make: list[str | Path] = ["make", "-s", "-C", tree / "src", f"O={tree / 'obj'}"]
    (tree / "obj").mkdir(exist_ok=True)
    command([*make, "tinyconfig"])
    config = tree / "obj/.config"
    merge = tree / "src/scripts/kconfig/merge_config.sh"
    command(["sh", merge, "-m", "-O", tree / "obj", config, *fragments], cwd=tree / "src")
    command([*make, "olddefconfig"])
    text = config.read_text()
    wishes = kconfig.wanted((path.name, path.read_text()) for path in fragments)
    refused = kconfig.missing(text, wishes)
    series = _series(tree / "src")
    own = any(_written_for(path.parent) in ("", series) for path in fragments)
    if refused and not (own and strict):
        known = _symbols(tree / "src")
        unknown = [wish for wish in refused if wish.symbol not in known]
        refused = [wish for wish in refused if wish.symbol in known]
        if unknown:
            progress(f"this source has no {', '.join('CONFIG_' + wish.symbol for wish in unknown)}")
        if refused and not own:
            told = ", ".join(f"CONFIG_{wish.symbol}={wish.value}" for wish in refused)
            progress(f"Linux {series} does not grant {told}")
            refused = []
    if refused:
        raise BuildFailed(f"the configuration does not take:\n{kconfig.complain(text, refused)}")
    if lacking := kconfig.lacks(text):
        raise BuildFailed(
            f"the configuration has no {' and no '.join(lacking)}: such a kernel cannot be a host",
            hint="fragments: " + ", ".join(path.name for path in fragments),
        )


def build(tree: Path, name: str, *, localversion: str, expected: int | None, progress: Progress, lock: int) -> Outcome:
    """Run make; what was compiled before an interruption is not compiled again.

    ``expected`` is the number of objects to come, where known; ``lock`` is a descriptor that make inherits, so that
    whoever waits for it waits for make too.  make ends when we do.

    :raise BuildFailed: make failed; the message has the compiler's words.
    """
    # SIGTERM for make when we die, however we die.
    words = [
        "setpriv",
        "--pdeathsig",
        "TERM",
        "make",
        f"-j{len(os.sched_getaffinity(0))}",
        "-C",
        str(tree / "src"),
        f"O={tree / 'obj'}",
    ]
    words += [*_REPRODUCIBLE, f"LOCALVERSION={localversion}", "bzImage"]
    objects = 0
    warnings: list[str] = []
    complaints: list[str] = []
    progress(f"building {name}")
    with (tree / "build.log").open("w") as log:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            pass_fds=[lock],
        )
        with process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    log.write(line)
                    if _OBJECT.match(line):
                        objects += 1
                        if objects % _TELL_EVERY == 0:
                            of = f" of {expected}" if expected else ""
                            progress(f"building {name}: {objects}{of} objects", _share(objects, expected))
                    elif _COMPLAINT.search(line):
                        complaints.append(line.rstrip())
                        if "warning:" in line:
                            warnings.append(line.rstrip())
            except BaseException:
                process.terminate()  # make ends its children, and removes what is half made
                raise
    if process.returncode != 0:
        said = "\n".join(complaints) or (tree / "build.log").read_text()
        raise BuildFailed(
            f"{name} does not build: make ended with status {process.returncode}\n{tail(said, 20)}",
            hint=f"the whole output is in {tree / 'build.log'}",
        )
    return Outcome(objects, tuple(warnings))


def _share(objects: int, expected: int | None) -> float | None:
    return min(objects / expected, 1.0) if expected else None


def _written_for(folder: Path) -> str:
    """The series that the fragments of a folder were written for, from a file of that name; empty: it has none."""
    said = folder / "written-for"
    return said.read_text().strip() if said.is_file() else ""


def _series(source: Path) -> str:
    """The series of a source tree, for instance "6.1"; empty: its Makefile does not say."""
    text = (source / "Makefile").read_text(errors="replace")
    found = [re.search(rf"^{key} = (\d+)$", text, re.MULTILINE) for key in ("VERSION", "PATCHLEVEL")]
    return ".".join(match[1] for match in found if match is not None)


def _symbols(source: Path) -> set[str]:
    """All symbols that a source tree's Kconfig files define."""
    found: set[str] = set()
    for folder, _, names in os.walk(source):
        for name in names:
            if name.startswith("Kconfig"):
                text = Path(folder, name).read_text(errors="replace")
                found.update(re.findall(r"^\s*(?:menu)?config\s+(\w+)", text, re.MULTILINE))
    return found
