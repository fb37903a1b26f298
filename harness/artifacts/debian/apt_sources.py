# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's own Debian mirrors, from its apt configuration (sources.list(5), both spellings)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import Unsupported

RELEASES = ("bullseye", "bookworm", "trixie", "forky")
"""Debian's releases, oldest first, whose kernels the model may describe."""
_ROLLING = ("sid", "experimental")
"""Suites that are never released: no updates, security or backports of their own."""
CODENAMES = ("buster", *RELEASES, *_ROLLING, "oldstable", "stable", "testing", "unstable")
_POCKETS = ("", "-updates", "-security")
_BACKPORTS = "-backports"
SUITES = (*(name + end for name in RELEASES for end in ("", _BACKPORTS)), *_ROLLING)
"""Every suite that may have a kernel, the stable ones first."""
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


@dataclass(frozen=True, slots=True)
class Source:
    """One binary package source: one URI, one suite, its options in their deb822 spelling."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    @property
    def pocket(self) -> str | None:
        """ "", "-updates" or "-security" for one of Debian's own suites, None for any other."""
        for pocket in _POCKETS:
            for codename in CODENAMES:
                # Up to buster the security suite was called codename/updates.
                if self.suite in (codename + pocket, f"{codename}/updates" if pocket == "-security" else None):
                    return pocket
        return None

    def deb822(self) -> str:
        """The source as a deb822 paragraph."""
        lines = ["Types: deb", f"URIs: {self.uri}", f"Suites: {self.suite}", f"Components: {' '.join(self.components)}"]
        return "\n".join(lines + [f"{key}: {value}" for key, value in self.options]) + "\n"


def parse_list(text: str) -> list[Source]:
    """The binary sources of a ``.list`` file."""
    found = []
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#", 1)[0].strip())
        if match is None:
            continue
        options = []
        for option in (match["options"] or "").split():
            key, _, value = option.partition("=")
            options.append((key.title(), value.replace(",", " ")))
        found.append(Source(match["uri"], match["suite"], tuple(match["components"].split()), tuple(options)))
    return found


def parse_sources(text: str) -> list[Source]:
    """The binary sources of a ``.sources`` file, disabled ones left out."""
    found: list[Source] = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in paragraph.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                fields[key] = fields.get(key, "") + "\n" + line
                continue
            key, _, value = line.partition(":")
            key = key.strip().title()
            fields[key] = value.strip()
        if "deb" not in fields.get("Types", "").split() or fields.get("Enabled", "yes").lower() in ("no", "false", "0"):
            continue
        standard = ("Types", "Uris", "Suites", "Components", "Enabled")
        options = tuple((name, value) for name, value in fields.items() if name not in standard)
        found += [
            Source(uri, suite, tuple(fields.get("Components", "").split()), options)
            for uri in fields.get("Uris", "").split()
            for suite in fields.get("Suites", "").split()
        ]
    return found


def machine_sources(etc: Path = Path("/etc/apt")) -> list[Source]:
    """Debian's own sources of this machine: one of Debian's suites and its component main."""
    found: list[Source] = []
    for path in [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]:
        if path.is_file():
            found += parse_list(path.read_text(errors="replace"))
    for path in sorted(etc.glob("sources.list.d/*.sources")):
        found += parse_sources(path.read_text(errors="replace"))
    return [source for source in found if source.pocket is not None and "main" in source.components]


def sources_for(codename: str, machine: list[Source]) -> list[Source]:
    """The sources of one of Debian's suites, with its updates, on the mirrors that the machine uses.

    Third-party repositories never come in, and apt refuses what is not signed as the machine's Debian sources are.

    :raise Unsupported: the machine has no Debian source to take a mirror from.
    """
    found: dict[Source, None] = {}
    for source in machine:
        pocket = source.pocket
        if pocket is None or (pocket and (codename in _ROLLING or codename.endswith(_BACKPORTS))):
            continue
        found[replace(source, suite=codename + pocket, components=("main",))] = None
    if not any(source.suite == codename for source in found):
        raise Unsupported(
            f"no Debian mirror for {codename}: this machine's apt sources name none of Debian's own suites",
            hint="add Debian's main archive to /etc/apt/sources.list.d",
        )
    return list(found)
