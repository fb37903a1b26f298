# SPDX-License-Identifier: GPL-2.0-or-later
"""What the project needs of the machine, from the one list that the set-up script reads too (.ci/needs)."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import layout
from harness.errors import InfraFault

NEEDS = layout.REPOSITORY / ".ci/needs"
_USES = ("run", "build", "both", "read")


@dataclass(frozen=True, slots=True)
class Need:
    """``use``: "run", "build", "both", or "read": wanted by who reads results; ``package``: Debian's.

    ``probe``: a command, or the path of a file.
    """

    use: str
    package: str
    probe: str

    @property
    def is_command(self) -> bool:
        return "/" not in self.probe

    def found(self) -> str:
        """Where it is, empty if it is nowhere.  System administration tools are looked for in sbin too."""
        if not self.is_command:
            return self.probe if Path(self.probe).exists() else ""
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        return shutil.which(self.probe, path=path) or ""


def needs(path: Path = NEEDS) -> tuple[Need, ...]:
    """The list, in its order.

    :raise InfraFault: it cannot be read, or a line of it is not three words.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as exc:
        raise InfraFault(f"the list of needed tools cannot be read: {exc}") from exc
    found = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 3 or words[0] not in _USES:
            raise InfraFault(f"{path}:{number}: expected FOR PACKAGE PROBE, found {line!r}")
        found.append(Need(words[0], words[1], words[2].replace("@MULTIARCH@", f"{os.uname().machine}-linux-gnu")))
    return tuple(found)


def build_commands(path: Path = NEEDS) -> tuple[str, ...]:
    """The commands without which no kernel can be built."""
    return tuple(n.probe for n in needs(path) if n.is_command and n.use in ("build", "both"))
